"""Settings and sizes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from nahanni_compute import config
from nahanni_compute.config import Settings, default_region_size, format_size, host_free_bytes, parse_size, settings
from nahanni_compute.errors import UsageError
from nahanni_compute.region.layout import REGION_SIZE_MIN
from nahanni_compute.region.sizes import checked_region_size

MIB, GIB = 1 << 20, 1 << 30


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in fields(Settings):
        monkeypatch.delenv(config.PREFIX + field.name.upper(), raising=False)


class TestSettings:
    """One frozen dataclass, and a variable for each of its fields."""

    def test_defaults_hold_where_no_variable_says_otherwise(self) -> None:
        """All of them."""
        assert settings() == Settings()

    def test_a_variable_overrides_its_field(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Read anew at each call, in the type of the field."""
        for name, text in (("STALL_S", "0.5"), ("VECTORS", "4"), ("RUN_DIR", "/x"), ("ARENA_BYTES", "16MiB"), ("LOG_LEVEL", "info")):
            monkeypatch.setenv("NAHANNI_" + name, text)
        found = settings()
        assert (found.stall_s, found.vectors, found.run_dir, found.arena_bytes, found.log_level) == (0.5, 4, "/x", 16 * MIB, "INFO")

    @pytest.mark.parametrize(
        ("name", "text", "wanted"),
        [
            ("VECTORS", "two", "a whole number"),
            ("VECTORS", "-1", "a whole number"),
            ("VECTORS", "1.5", "a whole number"),
            ("STALL_S", "soon", "a number"),
            ("STALL_S", "nan", "a number"),
            ("STALL_S", "inf", "a number"),
            ("ARENA_BYTES", "much", "NAHANNI_ARENA_BYTES"),
            ("LOG_LEVEL", "loud", "DEBUG, INFO, WARNING"),
        ],
    )
    def test_what_cannot_be_read_is_said_with_its_variable(
        self, monkeypatch: pytest.MonkeyPatch, name: str, text: str, wanted: str
    ) -> None:
        """Not ignored."""
        monkeypatch.setenv("NAHANNI_" + name, text)
        with pytest.raises(UsageError, match=wanted) as error:
            settings()
        assert f"NAHANNI_{name}" in str(error.value)
        assert repr(text) in str(error.value)

    def test_no_size_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """0 switches a limit off."""
        monkeypatch.setenv("NAHANNI_COMMIT_MAX_BYTES", "0")
        assert settings().commit_max_bytes == 0

    def test_they_do_not_change_under_who_holds_them(self) -> None:
        """Frozen."""
        with pytest.raises(FrozenInstanceError):
            settings().vectors = 3  # type: ignore[misc]


class TestSizes:
    """Of regions, above all."""

    @pytest.mark.parametrize(
        ("text", "nbytes"),
        [
            (4096, 4096),
            ("4096", 4096),
            ("4GiB", 4 * GIB),
            ("4gib", 4 * GIB),
            (" 4 GiB ", 4 * GIB),
            ("512M", 512 * MIB),
            ("2k", 2048),
            ("1TiB", 1 << 40),
            ("1.5GiB", 3 * GIB // 2),
            ("1GB", 10**9),
            ("1.5kB", 1500),
            ("7B", 7),
        ],
    )
    def test_it_is_read_as_people_write_it(self, text: int | str, nbytes: int) -> None:
        """Binary, but for what ends in a bare B."""
        assert parse_size(text) == nbytes

    @pytest.mark.parametrize("text", ["", "GiB", "4 gigs", "-4GiB", "0", "0.3", "1e9", "4GiB!", "0x10", -1, 0, True, None, 1.5])
    def test_anything_else_is_refused_by_name(self, text: object) -> None:
        """With what was seen."""
        with pytest.raises(UsageError, match="expected region_size") as error:
            parse_size(text, "region_size")  # type: ignore[arg-type]
        assert repr(text) in str(error.value)

    @pytest.mark.parametrize("nbytes", [1 << i for i in range(10, 50)] + [3 * GIB, 3 * MIB])
    def test_what_is_printed_is_read_back(self, nbytes: int) -> None:
        """For sizes that are whole."""
        assert parse_size(format_size(nbytes)) == nbytes

    def test_others_are_printed_for_people(self) -> None:
        """Rounded."""
        assert format_size(77) == "77 bytes"
        assert format_size(GIB + GIB // 4) == "1.2GiB"

    @pytest.mark.parametrize(
        ("nbytes", "said"),
        [
            (3 * GIB, "nearest are 2GiB and 4GiB"),
            (64 * MIB + 1, "nearest are 64MiB and 128MiB"),
            (32 * MIB, "64MiB to 1TiB"),
            (1 << 41, "64MiB to 1TiB"),
        ],
    )
    def test_a_region_is_a_power_of_two_within_limits(self, nbytes: int, said: str) -> None:
        """QEMU would abort."""
        with pytest.raises(UsageError, match=said):
            checked_region_size(nbytes)

    def test_the_default_is_half_of_what_is_free_as_a_power_of_two(self) -> None:
        """Never more than half, never less than a quarter, but for the least there is."""
        size, free = default_region_size(), host_free_bytes()
        assert checked_region_size(size) == size
        assert size == REGION_SIZE_MIN or free // 4 - GIB < size <= free // 2 + GIB

    def test_the_least_region_is_that_of_the_layout(self) -> None:
        """config stands below region and cannot ask."""
        assert config.REGION_BYTES_MIN == REGION_SIZE_MIN


class TestControlGroups:
    """A container's limit counts, not the host's memory alone."""

    def group(self, path: Path, limit: str, current: int, inactive: int = 0) -> None:
        path.mkdir(parents=True, exist_ok=True)
        (path / "memory.max").write_text(limit + "\n")
        (path / "memory.current").write_text(f"{current}\n")
        (path / "memory.stat").write_text(f"anon 1\ninactive_file {inactive}\n")

    def test_the_room_is_that_of_each_group_around_us(self, tmp_path: Path) -> None:
        """Less what is used, more what can be dropped at once; groups without a limit say nothing."""
        self.group(tmp_path / "a/b", str(GIB), 300 * MIB, 100 * MIB)
        self.group(tmp_path / "a", "max", 400 * MIB)
        own = tmp_path / "cgroup"
        own.write_text("1:name=x:/\n0::/a/b\n")
        assert config._group_rooms(tmp_path, own) == [GIB - 200 * MIB]

    def test_a_group_over_its_limit_has_no_room(self, tmp_path: Path) -> None:
        """And not less than none."""
        self.group(tmp_path, str(MIB), 2 * MIB)
        own = tmp_path / "cgroup"
        own.write_text("0::/\n")
        assert config._group_rooms(tmp_path, own) == [0]

    def test_without_groups_the_host_counts(self, tmp_path: Path) -> None:
        """Version 1 only, or none."""
        own = tmp_path / "cgroup"
        own.write_text("4:memory:/x\n")
        assert config._group_rooms(tmp_path, own) == []
