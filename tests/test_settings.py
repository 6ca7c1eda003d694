"""Settings: where they come from, in which order, and what a wrong one says."""

from pathlib import Path

import pytest

from gateway.settings import ConfigurationError, Settings, load, unknown_variables
from gateway.upstream.address import ollama_url


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory, and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("OLLAMA_HOST", *(f"GATEWAY_{name.upper()}" for name in Settings.model_fields)):
        monkeypatch.delenv(name, raising=False)


def test_defaults_are_the_contract() -> None:
    settings = load()
    assert settings.upstreams == ("http://127.0.0.1:11434",)
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert [settings.ping_interval, settings.status_interval] == [15, 2]
    limits = [settings.connect_timeout, settings.first_token_timeout, settings.idle_timeout, settings.total_timeout]
    assert limits == [5, 600, 120, 0]
    assert [settings.max_active, settings.max_queued, settings.attach_timeout] == [64, 256, 10]
    assert [settings.max_resume_window, settings.retain_seconds, settings.drain_seconds] == [300, 60, 20]
    assert (settings.max_body_bytes, settings.max_line_bytes) == (20 * 2**20, 16 * 2**20)
    assert (settings.max_stream_bytes, settings.max_log_bytes) == (32 * 2**20, 512 * 2**20)
    assert not settings.allow_pull
    assert not settings.default_model
    assert not settings.cors_origins


def test_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flag over environment over `.env` over `gateway.toml` over the default: without one, the next holds."""
    (tmp_path / "gateway.toml").write_text("port = 1004\n")
    (tmp_path / ".env").write_text("GATEWAY_PORT=1003\n")
    monkeypatch.setenv("GATEWAY_PORT", "1002")
    assert load(["--port", "1001"]).port == 1001
    assert load().port == 1002
    monkeypatch.delenv("GATEWAY_PORT")
    assert load().port == 1003
    (tmp_path / ".env").unlink()
    assert load().port == 1004
    (tmp_path / "gateway.toml").unlink()
    assert load().port == 8000


@pytest.mark.parametrize("source", ["flag", "environment", ".env", "file"])
def test_each_source_can_say_everything(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "ollama_url": "ollama:11434",
        "ping_interval": "0.5",
        "allow_pull": "true",
        "default_model": "qwen3",
        "cors_origins": "https://a.example, https://b.example:8443",
    }
    arguments: list[str] = []
    for name, value in values.items():
        if source == "flag":
            flag = "--" + name.replace("_", "-")
            arguments += [flag] if value == "true" else [flag, value]
        elif source == "environment":
            monkeypatch.setenv(f"GATEWAY_{name.upper()}", value)
    lines = [f'GATEWAY_{name.upper()}="{value}"' for name, value in values.items()]
    if source == ".env":
        (tmp_path / ".env").write_text("\n".join(lines))
    elif source == "file":
        lines = [f'{name} = "{value}"' for name, value in values.items()]
        (tmp_path / "gateway.toml").write_text("\n".join(lines))
    settings = load(arguments)
    assert settings.upstreams == ("http://ollama:11434",)
    assert settings.ping_interval == 0.5
    assert settings.allow_pull is True
    assert settings.default_model == "qwen3"
    assert settings.cors_origins == ("https://a.example", "https://b.example:8443")


def test_file_has_types_of_its_own(tmp_path: Path) -> None:
    """TOML's lists, numbers and booleans need no quotes; the table of presets is read elsewhere."""
    (tmp_path / "my.toml").write_text(
        'cors_origins = ["https://a.example"]\nping_interval = 3\nallow_pull = true\n[presets.x]\nprompt = "{prompt}"\n'
    )
    settings = load(["--config", "my.toml"])
    assert [settings.cors_origins, settings.ping_interval, settings.allow_pull] == [("https://a.example",), 3, True]


def test_flags_without_a_value() -> None:
    assert load(["--demo"]).demo is True
    assert load(["--no-demo"]).demo is False


WRONG_FLAGS = {
    "--port=80000": "GATEWAY_PORT (--port): Input should be less than or equal to 65535, not '80000'.",
    "--port=http": "GATEWAY_PORT (--port): Input should be a valid integer, ",
    "--ping-interval=0": "GATEWAY_PING_INTERVAL (--ping-interval): Input should be greater than 0, not '0'.",
    "--ping-interval=nan": "GATEWAY_PING_INTERVAL (--ping-interval): ",
    "--idle-timeout=-1": "GATEWAY_IDLE_TIMEOUT (--idle-timeout): ",
    "--total-timeout=inf": "GATEWAY_TOTAL_TIMEOUT (--total-timeout): ",
    "--max-active=0": "GATEWAY_MAX_ACTIVE (--max-active): ",
    "--max-body-bytes=1.5": "GATEWAY_MAX_BODY_BYTES (--max-body-bytes): ",
    "--allow-pull=perhaps": "argument --allow-pull/--no-allow-pull: ",
    "--cors-origins=chat.example.com": 'GATEWAY_CORS_ORIGINS (--cors-origins): "chat.example.com" is not an origin',
    "--cors-origins=https://a.example/": 'GATEWAY_CORS_ORIGINS (--cors-origins): "https://a.example/" is not an origin',
    "--ollama-url=ftp://ollama": "GATEWAY_OLLAMA_URL (--ollama-url): must be an http:// or https:// address, not 'ftp",
    "--ollama-url=ollama:port": "GATEWAY_OLLAMA_URL (--ollama-url): has a port that is not a number",
    "--ollama-url=a b": "GATEWAY_OLLAMA_URL (--ollama-url): is not an address",
    "--ollama-url=http://[::1": "GATEWAY_OLLAMA_URL (--ollama-url): ",
    "--ollama-urls=a,ftp://b": "GATEWAY_OLLAMA_URLS (--ollama-urls): must be an http:// or https:// address, not 'a,",
    "--ollama-urls=a,http://a:11434/": "GATEWAY_OLLAMA_URLS (--ollama-urls): must name each server once, not 'a,",
    "--config=nowhere.toml": "GATEWAY_CONFIG: there is no file nowhere.toml.",
    "--config=.": ".: cannot be read: ",
    "--prot=1": "unrecognized arguments: --prot=1 (--help lists the flags).",
    "serve": "unrecognized arguments: serve (--help lists the flags).",
    "--port": "argument --port: expected one argument",
}


@pytest.mark.parametrize("flag", WRONG_FLAGS)
def test_wrong_flag(flag: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load([flag])
    line = str(raised.value)
    assert line.startswith(WRONG_FLAGS[flag])
    assert "\n" not in line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("prot = 1", 'gateway.toml: "prot" is not a setting.'),
        ("port = 'x'", "GATEWAY_PORT (--port): "),
        ("port =", "gateway.toml: cannot be read: "),
        ("[server]\nport = 1", 'gateway.toml: "server" is not a setting.'),
    ],
)
def test_wrong_file(text: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        load()
    assert str(raised.value).startswith(line)
    assert "\n" not in str(raised.value)


def test_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"gateway\.toml: cannot be read"):
        load()


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("  ", "http://127.0.0.1:11434"),
        ('"localhost"', "http://localhost:11434"),
        ("localhost", "http://localhost:11434"),
        ("OLLAMA.Example", "http://ollama.example:11434"),
        ("10.0.0.7", "http://10.0.0.7:11434"),
        ("10.0.0.7:8080", "http://10.0.0.7:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:11434"),
        ("::1", "http://[::1]:11434"),
        ("[::]:8080", "http://[::1]:8080"),
        ("[fe80::1]", "http://[fe80::1]:11434"),
        ("http://ollama", "http://ollama:80"),
        ("https://ollama", "https://ollama:443"),
        ("https://ollama:8443/", "https://ollama:8443"),
        ("https://example.com/ollama/", "https://example.com:443/ollama"),
        ("example.com/ollama", "http://example.com:11434/ollama"),
        ("https://me:se%40cret@example.com", "https://me:se%40cret@example.com:443"),
    ],
)
def test_ollama_host(address: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """OLLAMA_HOST and the setting are read as Ollama's own tools read them; a bind address means loopback."""
    assert ollama_url(address) == url
    monkeypatch.setenv("OLLAMA_HOST", address)
    assert load().upstreams == (url,)
    monkeypatch.setenv("OLLAMA_HOST", "elsewhere")
    if address.strip():
        assert load(["--ollama-url", address]).upstreams == (url,)


@pytest.mark.parametrize("address", ["ftp://ollama", "ollama:port", "ollama:99999", "http://[::1", "a b"])
def test_wrong_ollama_host(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong OLLAMA_HOST ends the start as a wrong setting does; with `--demo` it does not matter."""
    monkeypatch.setenv("OLLAMA_HOST", address)
    with pytest.raises(ConfigurationError, match=r"^OLLAMA_HOST: "):
        load()
    assert load(["--demo"]).demo
    assert load(["--ollama-url=ollama"]).upstreams == ("http://ollama:11434",)


@pytest.mark.parametrize("source", ["flag", "environment", "file", "file's list"])
def test_several_servers(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is read like a single one; OLLAMA_HOST, which names one server, does not count then."""
    monkeypatch.setenv("OLLAMA_HOST", "elsewhere")
    arguments: list[str] = []
    match source:
        case "flag":
            arguments = ["--ollama-urls", "gpu1, https://gpu2:8443/ollama/"]
        case "environment":
            monkeypatch.setenv("GATEWAY_OLLAMA_URLS", "gpu1,https://gpu2:8443/ollama/,")
        case "file":
            (tmp_path / "gateway.toml").write_text('ollama_urls = "gpu1,https://gpu2:8443/ollama/"\n')
        case _:
            (tmp_path / "gateway.toml").write_text('ollama_urls = ["gpu1", "https://gpu2:8443/ollama/"]\n')
    settings = load(arguments)
    assert settings.upstreams == ("http://gpu1:11434", "https://gpu2:8443/ollama")
    assert settings.summary() == "ollama=http://gpu1:11434,https://gpu2:8443/ollama"


def test_one_server_and_several_do_not_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever they come from, choosing one of them would be a guess. An empty one counts as unset."""
    (tmp_path / "gateway.toml").write_text('ollama_urls = ["gpu1", "gpu2"]\n')
    with pytest.raises(ConfigurationError, match=r"^GATEWAY_OLLAMA_URL and GATEWAY_OLLAMA_URLS are both set\. "):
        load(["--ollama-url=gpu3"])
    monkeypatch.setenv("GATEWAY_OLLAMA_URL", "")
    assert len(load().upstreams) == 2


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:s3cret@redis:6379/0", "redis://***@redis:6379/0"),
        ("redis://:s3/cr@et@redis:6379/0", "redis://***@redis:6379/0"),
        ("redis://redis/0?password=s3cret&x=1", "redis://redis/0?password=***&x=1"),
        ("unix:///redis.sock?username=s3cret&password=s3cret", "unix:///redis.sock?username=***&password=***"),
    ],
)
def test_the_password_of_redis_is_not_shown(url: str, shown: str) -> None:
    settings = load([f"--redis-url={url}"])
    assert settings.redis_url == url
    assert settings.summary().endswith(f" redis_url={shown}")


@pytest.mark.parametrize("url", ["redis", "http://redis:6379", "redis://"])
def test_what_is_no_redis(url: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^GATEWAY_REDIS_URL \(--redis-url\): is not an address such as redis://"
    ):
        load([f"--redis-url={url}"])


def test_summary_tells_what_differs() -> None:
    settings = load(["--port=1", "--ollama-url=ollama", "--cors-origins=https://a.example,https://b.example"])
    assert settings.summary() == ("ollama=http://ollama:11434 port=1 cors_origins=https://a.example,https://b.example")


@pytest.mark.parametrize("url", ["http://me:secret@ollama:1", "http://me:se@cret@ollama:1", "me:secret@ollama:1"])
def test_summary_shows_no_credentials(url: str) -> None:
    summary = load(["--ollama-url", url]).summary()
    assert "cret" not in summary
    assert "me" not in summary
    assert "ollama=http://***@ollama:1" in summary


@pytest.mark.parametrize("url", ["http://me:secret@ollama:x", "me:secret@ollama:x", "ftp://me:se@cret@ollama"])
def test_refusal_shows_no_credentials(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line may well end up in a log or in a bug report."""
    with pytest.raises(ConfigurationError, match=r"^GATEWAY_OLLAMA_URL") as raised:
        load(["--ollama-url", url])
    assert "cret" not in str(raised.value)
    with pytest.raises(ConfigurationError, match=r"^GATEWAY_OLLAMA_URLS") as raised:
        load(["--ollama-urls", f"http://gpu/,{url}"])
    assert "cret" not in str(raised.value)
    monkeypatch.setenv("OLLAMA_HOST", url)
    with pytest.raises(ConfigurationError, match=r"^OLLAMA_HOST") as raised:
        load()
    assert "cret" not in str(raised.value)


def test_unknown_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "1")
    monkeypatch.setenv("GATEWAY_PROT", "1")
    assert unknown_variables() == ["GATEWAY_PROT"]


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert field.description
