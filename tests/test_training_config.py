"""TrainingConfig: where each setting comes from, what it may be, and what is said of one that it may not."""

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydra_detect import codec
from hydra_detect.errors import InputError, RecordError
from hydra_detect.training.config import (
    DEFAULT_PRESET,
    PRESETS,
    PROFILES,
    VIEWS,
    TrainingConfig,
    resolve_config,
    settled,
)

SETTINGS = {
    "epochs": st.integers(1, 100_000),
    "patience": st.integers(0, 100_000),
    "min_delta": st.floats(0, 1),
    "monitor": st.sampled_from(["f1", "loss"]),
    "learning_rate": st.floats(1e-9, 1e3),
    "gradient_clip": st.floats(0, 1e6),
    "ema_decay": st.floats(0, 1),
    "sampler": st.sampled_from(["shuffle", "balanced"]),
    "features": st.sampled_from(["cached", "fresh"]),
    "views": st.lists(st.sampled_from(VIEWS), max_size=3).map(tuple),
    "augmentations": st.lists(st.sampled_from(["hflip", "blur", "my own"]), max_size=3).map(tuple),
    "focal_alpha": st.sampled_from(["", "0.25", "0.1,0.4,0.5", "dynamic"]),
    "feature_dtype": st.sampled_from(["float16", "float32"]),
    "cache_bytes": st.integers(0, 1 << 50),
    "anchors": st.sampled_from(["keep", "default", "kmeans"]),
    "anchor_sizes": st.lists(
        st.lists(st.floats(1, 1e4), min_size=1, max_size=2).map(tuple), min_size=2, max_size=4
    ).map(tuple),
    "aspect_ratios": st.lists(st.floats(0.01, 100), max_size=3).map(tuple),
}


@pytest.mark.parametrize("rank", ["", "much", "8,", "rpn:", "rpn:8,fc6", "rpn:-1", "fc6:8.5"])
def test_a_rank_that_is_none(rank):
    """What no head could have as a rank is refused when it is set."""
    with pytest.raises(RecordError, match=r"rank is .*, and not one number"):
        TrainingConfig(rank=rank)


@pytest.mark.parametrize("rank", ["8", " 16 ", "whole", "rpn:8, fc6:32,fc7:whole", "box.0:0"])
def test_a_rank(rank):
    """One number, or a number or all for each layer that is named."""
    assert TrainingConfig(rank=rank).rank == rank


def settings():
    """Draw some settings by name, each of which it may be."""
    return st.fixed_dictionaries({}, optional=SETTINGS)


def as_text(value):
    """Write a setting as a command line would."""
    if isinstance(value, tuple):
        return ("/" if value and isinstance(value[0], tuple) else ",").join(map(as_text, value))
    return value if isinstance(value, str) else json.dumps(value)


def test_nothing_given_is_the_balanced_preset():
    """Without anything the configuration is the default preset, which is what the class says by itself."""
    assert resolve_config() == resolve_config(DEFAULT_PRESET) == TrainingConfig()


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_differ_where_they_say(preset):
    """A preset is the defaults with its own settings, all of which exist."""
    plain = attrs.asdict(TrainingConfig())
    assert attrs.asdict(resolve_config(preset)) == {**plain, **PRESETS[preset]}


@given(settings())
def test_round_trip(given_settings):
    """A configuration is read back from its JSON as it was."""
    config = TrainingConfig(**given_settings)
    assert codec.decode(TrainingConfig, codec.encode(config), "settings") == config


@given(settings())
def test_texts_mean_what_values_mean(given_settings):
    """What a command line or the environment says as text is what a program gives as a value."""
    texts = {name: as_text(value) for name, value in given_settings.items()}
    config = resolve_config(given=given_settings)
    assert resolve_config(given=texts) == config
    assert resolve_config(environment={f"HYDRA_DETECT_TRAIN_{k.upper()}": v for k, v in texts.items()}) == config


@given(settings(), settings(), settings(), st.sampled_from(sorted(PRESETS)))
def test_precedence(tmp_path_factory, in_file, in_environment, in_call, preset):
    """A setting comes from the call, else the environment, else the file, else the preset, else the defaults."""
    path = tmp_path_factory.getbasetemp() / "settings.json"
    path.write_text(json.dumps(in_file))
    environment = {f"HYDRA_DETECT_TRAIN_{name.upper()}": as_text(value) for name, value in in_environment.items()}
    found = resolve_config(preset, file=path, environment={**environment, "HOME": "/root"}, given=in_call)
    assert found == TrainingConfig(**{**PRESETS[preset], **in_file, **in_environment, **in_call})


def test_files_of_both_kinds(tmp_path):
    """TOML and JSON files say the same in their own ways; an empty one says nothing."""
    (tmp_path / "a.toml").write_text('epochs = 7\nlearning_rate = 1e-4\nviews = ["plain", "rot90"]\n')
    (tmp_path / "a.json").write_text('{"epochs": 7, "learning_rate": 1e-4, "views": ["plain", "rot90"]}')
    (tmp_path / "empty.toml").write_text("")
    expected = TrainingConfig(epochs=7, learning_rate=1e-4, views=("plain", "rot90"))
    assert resolve_config(file=tmp_path / "a.toml") == resolve_config(file=str(tmp_path / "a.json")) == expected
    assert resolve_config(file=tmp_path / "empty.toml") == TrainingConfig()


def test_lists_may_be_written_in_several_ways():
    """A list may be a list, a tuple, a text with commas, or JSON; an empty text is an empty list."""
    ways = (["plain", "hflip"], ("plain", "hflip"), "plain,hflip", " plain , hflip ,", '["plain", "hflip"]')
    assert {resolve_config(given={"views": way}).views for way in ways} == {("plain", "hflip")}
    assert resolve_config(given={"views": ""}).views == ()
    ways = ("8/16,24/32", "[[8], [16, 24], [32]]", [[8], [16, 24], [32]], ((8,), (16, 24), (32,)))
    assert {resolve_config(given={"anchor_sizes": way}).anchor_sizes for way in ways} == {((8,), (16, 24), (32,))}
    assert resolve_config(given={"aspect_ratios": "0.5, 1"}).aspect_ratios == (0.5, 1.0)


def test_focal_weights_may_be_written_in_several_ways(tmp_path):
    """One number or a list of them may be text or numbers, in a file or a call: equal weights have equal digests."""
    ways = (0.25, "0.25", " 0.250 ", [0.25], (0.25,), "[0.25]")
    found = [resolve_config(given={"focal_alpha": way}) for way in ways] + [TrainingConfig(focal_alpha=w) for w in ways]
    path = tmp_path / "mine.toml"
    path.write_text("focal_alpha = 0.25")
    found.append(resolve_config(file=path))
    assert {codec.digest_of(codec.to_dict(config)) for config in found} == {
        codec.digest_of(codec.to_dict(TrainingConfig(focal_alpha="0.25")))
    }
    path.write_text("focal_alpha = [0.1, 1, 2.50]")
    ways = (resolve_config(file=path), resolve_config(given={"focal_alpha": "0.1, 1.0,2.5"}))
    assert {config.focal_alpha for config in ways} == {"0.1,1,2.5"}
    assert [TrainingConfig(focal_alpha=way).focal_alpha for way in ("", "dynamic", [])] == ["", "dynamic", ""]


@pytest.mark.parametrize("value", [True, None, {}, [True], [[0.1, 0.9]], ["0.1"]])
def test_other_focal_weights_are_refused(value):
    """What is neither text, a number nor a list of numbers is refused with what may be given."""
    said = r"focal_alpha is .*, and not 'dynamic', one number, or a list of numbers"
    with pytest.raises(InputError, match=f"in the settings given, {said}"):
        resolve_config(given={"focal_alpha": value})
    with pytest.raises(RecordError, match=said):
        TrainingConfig(focal_alpha=value)


@pytest.mark.parametrize("value", [8e9, "8e9", "8000000000", 8_000_000_000])
def test_a_whole_number_may_be_written_as_a_float(value):
    """A count may have an exponent, as bytes often do; it is a whole number all the same."""
    found = resolve_config(given={"cache_bytes": value}).cache_bytes
    assert (found, type(found)) == (8_000_000_000, int)


def test_unknown_keys_are_refused_with_near_matches(tmp_path):
    """A misspelt setting or preset is refused wherever it stands, with where that is and what is near."""
    path = tmp_path / "mine.toml"
    path.write_text("learning_rat = 1.0")
    with pytest.raises(InputError, match=r"the file .*mine\.toml has 'learning_rat'.* Did you mean 'learning_rate'"):
        resolve_config(file=path)
    with pytest.raises(InputError, match=r"the environment has 'epoch', .* Did you mean 'epochs'"):
        resolve_config(environment={"HYDRA_DETECT_TRAIN_EPOCH": "3"})
    with pytest.raises(InputError, match="the settings given has 'unknown', which is no setting"):
        resolve_config(given={"unknown": {}})
    with pytest.raises(InputError, match=r"no preset 'fastt'. Did you mean 'fast'"):
        resolve_config("fastt")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0), ("epochs", "many"), ("epochs", 2.5), ("epochs", None), ("epochs", True),
        ("patience", -1), ("learning_rate", 0), ("learning_rate", "nan"), ("learning_rate", "1e999"),
        ("learning_rate", float("inf")), ("ema_decay", 1.5), ("ema_decay", "NaN"), ("gradient_clip", float("nan")),
        ("monitor", "F1"), ("views", "sideways"), ("views", 3), ("profile", "audio"), ("objective", "beauty"),
        ("feature_dtype", "float8"), ("cache_bytes", -1), ("anchors", "best"), ("precision", "int4"),
        ("features", "stale"), ("sampler", "first"), ("batch_size", 0),
        ("anchor_sizes", "8/x"), ("anchor_sizes", "16"), ("anchor_sizes", "0/8"), ("anchor_sizes", [[-1], [8]]),
        ("anchor_sizes", "[[1e999]]"), ("aspect_ratios", "wide"), ("aspect_ratios", (0.5, 0)),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_by_name(name, value):
    """What a setting cannot be is refused with its name, as a value and as text."""
    with pytest.raises(InputError, match=f"in the settings given, .*{name}") as caught:
        resolve_config(given={name: value})
    assert caught.value.asked == "configure a training"


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.yaml", "epochs: 3", "'.yaml' file"),
        ("a.toml", "epochs = ", "cannot be parsed"),
        ("a.json", "{", "cannot be parsed"),
        ("a.json", "[1]", "no settings by name"),
        ("a.json", "[" * 100_000, "cannot be parsed"),
        ("a.json", " " * (1 << 20) + "{}", "of 1048578 bytes"),
        ("b.json", b"\xff", "cannot be parsed"),
        ("a.toml", "epochs = 3\nepochs = 4", "cannot be parsed"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path, name, content, found):
    """A file of another kind, too large, or not to be parsed is refused with its name."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=found) as caught:
        resolve_config(file=path)
    assert str(path) in caught.value.asked


def test_a_file_that_is_missing(tmp_path):
    """A file that is not there is refused as the system says it."""
    with pytest.raises(InputError, match="No such file"):
        resolve_config(file=tmp_path / "none.toml")


@pytest.mark.parametrize("name", sorted(PROFILES["spectrogram"].forbidden))
def test_spectrograms_are_never_turned_nor_coloured(name):
    """A spectrogram profile refuses a vertical flip, any turn and colour, as view and as augmentation."""
    for setting in ("augmentations", *(["views"] if name in VIEWS else [])):
        with pytest.raises(RecordError, match=f"{name} would change what a signal is: its axes are time and frequency"):
            TrainingConfig(profile="spectrogram", **{setting: (name,)})
        assert name in getattr(TrainingConfig(**{setting: (name,)}), setting)


def test_profiles_say_what_is_usual():
    """Pictures are also seen mirrored; spectrograms are seen as they are, shifted, louder, masked. Names given win."""
    picture, spectrogram = TrainingConfig(), TrainingConfig(profile="spectrogram")
    assert (picture.seen_as, spectrogram.seen_as) == (("plain", "hflip"), ("plain",))
    assert spectrogram.augmented_by == ("time_shift", "gain", "time_mask", "frequency_mask")
    assert set(PROFILES["spectrogram"].forbidden) >= {"vflip", "rotate", "rot90", "rot180", "rot270", "colour"}
    own = TrainingConfig(views=("rot90",), augmentations=("blur",))
    assert (own.seen_as, own.augmented_by) == (("rot90",), ("blur",))
    for profile in PROFILES.values():
        assert not profile.forbidden.intersection(profile.views + profile.augmentations)


def test_all_settings_or_those_that_differ():
    """Settings are given whole or as what differs from a preset, which is looked up in either case."""
    whole = resolve_config("fast", given={"epochs": 7})
    assert settled("fast", {"epochs": 7}) == settled("balanced", whole) == whole
    assert settled("fast", None) == resolve_config("fast")
    for config in (None, whole):
        with pytest.raises(InputError, match="balancd"):
            settled("balancd", config)
