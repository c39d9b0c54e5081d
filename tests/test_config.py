"""Configuration: an error names the key, its value and what is allowed; secrets come from outside and stay hidden."""

import sys
from pathlib import Path

import pytest

from streamseg.config import read, validated
from streamseg.errors import ConfigError
from streamseg.source import masked, parse


def config(text: str, tmp_path: Path, *overrides: str) -> object:
    path = tmp_path / "cameras.yaml"
    path.write_text(text)
    return validated(read(path), overrides, "cameras.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("streams: [{source: synthetic://street}, {source: 'htp://x/y'}]", ["streams[1].source", "'htp'", "rtsp://"]),
        ("streams: [{source: synthetic://street, fps: -1}]", ["streams[0].fps", "-1", "greater than or equal to 0"]),
        ("streams: [{source: synthetic://street, fsp: 5}]", ["streams[0].fsp", "no such setting"]),
        ("streams: [{id: 'a b', source: synthetic://street}]", ["streams[0].id", "'a b'"]),
        (
            "streams: [{id: a, source: synthetic://street}, {id: a, source: synthetic://street}]",
            ["streams[1].id", "'a'"],
        ),
        ("streams: []", ["streams"]),
        ("streams: [{source: nowhere.mp4}]", ["streams[0].source", "nowhere.mp4", "no such file"]),
        ("streams: [{source: 'rtsp://u:${NO_SUCH_VARIABLE}@h/p'}]", ["streams[0].source", "NO_SUCH_VARIABLE"]),
        ("streams: [{source: synthetic://street}]\npublish: {encoding: gzip}", ["publish.encoding", "gzip", "deflate"]),
        ("streams: [{source: synthetic://street}]\nengine: {device: gpu}", ["engine.device", "'gpu'", "cuda:0"]),
        ("streams: [{source: 'rtsp://h/p'}]\npublish: {wait_subscriber: true}", ["wait_subscriber", "live"]),
        ("engine: {name: x}", ["streams"]),
        ("streams: {id: a, source: synthetic://street}", ["streams", "items that begin with `- `"]),
        ("streams: [synthetic://street]", ["streams[0]", "`key: value`"]),
        ("- a\n- b", ["streams", "list"]),
        ("streams: [", ["not valid YAML", "line 1"]),
        (
            "streams: [{source: synthetic://street}]\nstreams: [{id: b, source: synthetic://street}]",
            ["streams is given twice", "line 2"],
        ),
        ("streams: [{source: synthetic://street, fps: 5, fps: 9}]", ["fps is given twice", "line 1"]),
    ],
)
def test_an_error_names_the_file_the_key_and_what_is_wrong(text: str, said: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config(text, tmp_path)
    message = str(caught.value)
    assert "cameras.yaml" in message
    assert "\n" not in message
    for words in said:
        assert words in message


def test_a_section_with_nothing_in_it_is_as_one_left_out(tmp_path: Path) -> None:
    assert config("streams: [{source: synthetic://street}]\npublish:\n  # bind: x\n", tmp_path).publish.encoding


def test_anchors_and_merged_keys_are_no_repetition(tmp_path: Path) -> None:
    text = """
        streams:
          - &gate {id: gate, source: synthetic://street, fps: 5}
          - &yard {<<: *gate, id: yard}
          - {<<: *yard, id: door, fps: 9}
    """
    streams = config(text, tmp_path).streams  # type: ignore[attr-defined]
    assert [(stream.id, stream.fps) for stream in streams] == [("gate", 5), ("yard", 5), ("door", 9)]


def test_an_encoding_whose_package_is_missing_is_refused_before_a_subscriber_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "streams: [{source: synthetic://street}]\npublish: {encoding: zstd}"
    config(text, tmp_path)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ConfigError, match=r"publish\.encoding: 'zstd': needs .* pip install 'streamseg\[zstd\]'"):
        config(text, tmp_path)


def test_passwords_come_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE_PASSWORD", "p@ss/w:rd")
    (tmp_path / "secret").write_text("s3cret\n")
    text = f"""
        streams:
          - {{id: a, source: "rtsp://u:${{GATE_PASSWORD}}@h/p"}}
          - {{id: b, source: "rtsp://u:${{file:{tmp_path}/secret}}@h/p"}}
    """
    streams = config(text, tmp_path).streams  # type: ignore[attr-defined]
    assert streams[0].parsed.location == "rtsp://u:p%40ss%2Fw%3Ard@h/p"
    assert streams[1].parsed.location == "rtsp://u:s3cret@h/p"


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://u:s3cret@h:554/p",
        "rtsp://u:s3/cr@et@h/p",
        "http://h/p?user=u&password=s3cret",
        "rtsp://h/p?token=s3cret#x",
    ],
)
def test_a_password_never_shows(url: str) -> None:
    source = parse(url)
    for text in (source.shown, repr(source), masked(f"cannot open {url}")):
        for secret in ("s3", "cr@et", "cret"):
            assert secret not in text.replace("secret", "")


def test_a_bare_off_is_a_mode(tmp_path: Path) -> None:
    """YAML reads it as false."""
    street = "streams: [{source: synthetic://street}]"
    for chosen in (
        config(f"{street}\nsmoothing: {{mode: off}}", tmp_path),
        config(street, tmp_path, "smoothing.mode=off"),
    ):
        assert chosen.smoothing.mode == "off"  # type: ignore[attr-defined]


def test_overrides_reach_any_setting(tmp_path: Path) -> None:
    text = "streams: [{id: gate, source: synthetic://street}]"
    settings = config(text, tmp_path, "streams[0].fps=5", "publish.bind=tcp://127.0.0.1:7000", "smoothing.strength=0.4")
    assert settings.streams[0].fps == 5  # type: ignore[attr-defined]
    assert settings.publish.bind == "tcp://127.0.0.1:7000"  # type: ignore[attr-defined]
    assert settings.smoothing.strength == 0.4  # type: ignore[attr-defined]


@pytest.mark.parametrize("override", ["streams[3].fps=5", "fps", "=5", "streams[x].fps=5"])
def test_an_override_that_leads_nowhere_is_refused(override: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--set"):
        config("streams: [{source: synthetic://street}]", tmp_path, override)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("rtsp://u:p@cam7.example/live/main.sdp", "main"),
        ("rtsp://10.0.0.7", "10.0.0.7"),
        ("/dev/video0", "video0"),
        ("/dev/v4l/by-id/usb-cam_1", "usb-cam_1"),
        ("synthetic://street?seed=3", "street"),
    ],
)
def test_a_stream_without_an_id_is_named_after_its_source(source: str, name: str) -> None:
    assert parse(source).default_stream == name


def test_a_file_url_may_be_percent_encoded(tmp_path: Path) -> None:
    clip = tmp_path / "the gate #1.mp4"
    clip.touch()
    assert parse(clip.as_uri()).location == str(clip)
