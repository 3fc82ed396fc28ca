"""Make the golden files: each OTP's own ``term_to_binary`` on the terms of ``tests/golden/table.py``.

    tools/make_golden.py [RELEASE...]        default 25 27 28 29

Prints a line for each file written. Exit status 1 when an OTP is missing or refuses a term.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from erlang_interop.testing.beam import find_otp_roots
from tests.golden.table import TERMS, Golden, path_of

RELEASES = (25, 27, 28, 29)

#: Evaluates one term for each line of its input, "base64(source) base64(options)", and prints it in base64.
PROGRAM = r"""
    Evaluate = fun(Encoded) ->
        {ok, Tokens, _} = erl_scan:string(binary_to_list(base64:decode(Encoded)) ++ "."),
        {ok, Expressions} = erl_parse:parse_exprs(Tokens),
        {value, Value, _} = erl_eval:exprs(Expressions, []),
        Value
    end,
    Loop = fun Self() ->
        case io:get_line("") of
            eof -> halt(0);
            Line ->
                [Source, Options] = string:lexemes(Line, " \n"),
                Bytes = term_to_binary(Evaluate(Source), Evaluate(Options)),
                io:put_chars([base64:encode(Bytes), $\n]),
                Self()
        end
    end,
    Loop().
"""


def terms_of(release: int) -> list[Golden]:
    """The terms that an OTP release has."""
    return [golden for golden in TERMS if golden.since <= release]


def encode_with(root: Path, terms: list[Golden]) -> list[bytes]:
    """Let the OTP below ``root`` encode the terms; RuntimeError says what it had to complain about."""
    lines = [b" ".join(base64.b64encode(text.encode()) for text in (golden.source, golden.options)) for golden in terms]
    done = subprocess.run(
        [str(root / "bin" / "erl"), "-noshell", "-eval", PROGRAM],
        input=b"\n".join(lines) + b"\n",
        capture_output=True,
        check=False,
    )
    encoded = done.stdout.split()
    if len(encoded) != len(terms):
        failed = terms[min(len(encoded), len(terms) - 1)]
        raise RuntimeError(
            f"{root} made {len(encoded)} terms of {len(terms)}; then {failed.source!r}:\n{done.stderr.decode()}"
        )
    return [base64.b64decode(line) for line in encoded]


def main(arguments: list[str]) -> int:
    """Write the files of the releases named."""
    roots = find_otp_roots()
    for release in [int(argument) for argument in arguments] or RELEASES:
        root = roots.get(release)
        if root is None:
            print(f"OTP {release} is not installed: run tools/get_otp.py {release}", file=sys.stderr)
            return 1
        terms = terms_of(release)
        try:
            encoded = encode_with(root, terms)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
        path = path_of(release)
        path.write_text(
            "".join(
                f"{golden.label}\t{golden.source}\t{base64.b64encode(data).decode()}\n"
                for golden, data in zip(terms, encoded, strict=True)
            )
        )
        print(f"{path}: {len(terms)} terms")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
