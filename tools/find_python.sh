#!/bin/sh
# Print the Python to build the virtual environment with: `python3` if it is new enough, else the newest that is there.
# Exit status 1 and one line on stderr when there is none, or when it cannot make virtual environments.
set -eu
lacking=
for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
  # Running it is the test: a version manager's placeholder is on PATH and does not run.
  "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (4,))' >/dev/null 2>&1 || continue
  if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    echo "$candidate"
    exit 0
  fi
  lacking=${lacking:-$("$candidate" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')}
done
if [ -n "$lacking" ]; then
  echo "Python is here, but cannot make virtual environments: apt install $lacking" >&2
else
  echo "no Python 3.11 or newer: apt install python3 python3-venv, or name one with make PYTHON=/path/to/python3" >&2
fi
exit 1
