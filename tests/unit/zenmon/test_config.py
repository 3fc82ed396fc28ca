"""Settings: defaults are ZenMonitor's, and every mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from zenmon_node.config import RANGES, Settings, SettingsError, load_settings, settings_from


def test_defaults_are_zenmonitors() -> None:
    settings = Settings()
    assert (settings.connector_sweep_interval, settings.connector_chunk_size) == (100, 5000)
    assert (settings.batcher_sweep_interval, settings.batcher_chunk_size) == (100, 5000)
    assert (settings.demand_interval, settings.demand_amount) == (100, 1000)
    assert (settings.max_binary_size, settings.truncation_depth) == (1024, 3)


@pytest.mark.parametrize("name", list(RANGES))
def test_out_of_range_names_the_setting_and_the_range(name: str) -> None:
    low, high = RANGES[name]
    for value in (low - 1, high + 1, 1.5, "7", True, None):
        with pytest.raises(SettingsError, match=f"{name} = .*from {low} to {high}"):
            settings_from({name: value}, source="code")
    for value in (low, high):
        assert getattr(settings_from({name: value}, source="code"), name) == value


def test_the_constructor_checks_too() -> None:
    with pytest.raises(SettingsError, match="demand_amount = 0"):
        Settings(demand_amount=0)


def test_a_misspelt_name_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(SettingsError, match="'demand_interavl'; did you mean demand_interval"):
        settings_from({"demand_interavl": 1}, source="code")
    with pytest.raises(SettingsError, match="there are connector_sweep_interval, "):
        settings_from({"zzz": 1}, source="code")


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "zenmon.toml"
    path.write_text("[zen_monitor]\ndemand_amount = 7\n")
    assert load_settings(path).demand_amount == 7


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[zen_monitor]\ndemand_amount = 0\n", "zenmon.toml: demand_amount = 0"),
        ("[zen_monitor]\nnope = 0\n", "zenmon.toml: there is no setting 'nope'"),
        ("[zenmonitor]\n", "no table or key 'zenmonitor'"),
        ("zen_monitor = 1\n", "must be a table"),
        ("[zen_monitor\n", "is not TOML"),
    ],
)
def test_bad_toml(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "zenmon.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=match):
        load_settings(path)


def test_missing_toml(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load_settings(tmp_path / "no.toml")


def test_environment() -> None:
    environ = {"ZENMON_DEMAND_AMOUNT": "9", "ZENMON_COOKIE": "secret", "HOME": "/"}
    assert load_settings(environ=environ).demand_amount == 9


@pytest.mark.parametrize("variable", ["ZENMON_COMPILE", "ZENMON_COMPILE_CACHE", "ZENMON_OTPS", "ZENMON_OTP_ROOT_27"])
def test_whoever_builds_or_tests_can_run_the_program(variable: str) -> None:
    assert load_settings(environ={variable: "1"}) == Settings()


@pytest.mark.parametrize(
    ("environ", "match"),
    [
        ({"ZENMON_DEMAND_AMOUNT": "many"}, "ZENMON_DEMAND_AMOUNT='many': it must be a whole number from 1"),
        ({"ZENMON_DEMAND_AMOUNT": "0"}, "ZENMON_DEMAND_AMOUNT: demand_amount = 0 is not allowed"),
        ({"ZENMON_DEMAND_AMUONT": "1"}, "ZENMON_DEMAND_AMUONT is no setting; did you mean ZENMON_DEMAND_AMOUNT"),
    ],
)
def test_bad_environment(environ: dict[str, str], match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        load_settings(environ=environ)


def test_later_sources_win(tmp_path: Path) -> None:
    path = tmp_path / "zenmon.toml"
    path.write_text("[zen_monitor]\ndemand_amount = 1\ndemand_interval = 1\nbatcher_chunk_size = 1\n")
    environ = {"ZENMON_DEMAND_AMOUNT": "2", "ZENMON_DEMAND_INTERVAL": "2"}
    settings = load_settings(path, environ=environ, overrides={"demand_amount": 3})
    assert (settings.batcher_chunk_size, settings.demand_interval, settings.demand_amount) == (1, 2, 3)


def test_the_page_has_every_setting_with_its_default_and_its_range() -> None:
    page = (Path(__file__).parents[3] / "docs" / "zenmonitor.md").read_text(encoding="utf-8")
    for name, (low, high) in RANGES.items():
        assert f"| `{name}` | {getattr(Settings(), name)} | {low} to {high} |" in page
    assert {*RANGES, "gen_module"} == set(Settings.__struct_fields__)
    assert "| `gen_module` | none |" in page


def test_changed() -> None:
    assert Settings().changed(demand_amount=5) == Settings(demand_amount=5)
    with pytest.raises(SettingsError):
        Settings().changed(demand_amuont=5)


# -- the module that Connectors talk through


def test_gen_module_may_be_a_module_with_call_and_cast(tmp_path: Path) -> None:
    assert Settings().gen_module is None
    assert Settings(gen_module="zenmon_node.gen").gen_module == "zenmon_node.gen"
    path = tmp_path / "zenmon.toml"
    path.write_text('[zen_monitor]\ngen_module = "zenmon_node.gen"\n')
    assert load_settings(path).gen_module == "zenmon_node.gen"
    assert load_settings(environ={"ZENMON_GEN_MODULE": "zenmon_node.gen"}).gen_module == "zenmon_node.gen"
    assert Settings(gen_module="zenmon_node.gen").changed(gen_module=None).gen_module is None


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("Elixir.GenServer", "importing it failed: ModuleNotFoundError"),
        ("", "importing it failed: ValueError"),
        (".gen", "importing it failed: TypeError"),
        ("json", "it has no function call and no function cast"),
        (7, "it is no text"),
    ],
)
def test_another_gen_module_is_an_error_that_says_what_is_needed(value: object, why: str) -> None:
    with pytest.raises(SettingsError, match=rf"gen_module = .*{why}.*functions call\(process, "):
        settings_from({"gen_module": value}, source="code")


def test_a_gen_module_that_raises_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gen_that_raises.py").write_text("raise RuntimeError('no relay')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingsError, match=r"environment: ZENMON_GEN_MODULE: gen_module = .*RuntimeError: no relay"):
        load_settings(environ={"ZENMON_GEN_MODULE": "gen_that_raises"})


def test_a_setting_that_only_the_original_has_is_explained() -> None:
    with pytest.raises(SettingsError, match="'batcher_lookup_timeout' here: the Batchers are part of the Proxy"):
        settings_from({"batcher_lookup_timeout": 30_000}, source="zenmon.toml")
    with pytest.raises(SettingsError, match=r"ZENMON_BATCHER_LOOKUP_TIMEOUT is no setting here: .* leave it out"):
        load_settings(environ={"ZENMON_BATCHER_LOOKUP_TIMEOUT": "30000"})
