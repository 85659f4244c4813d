from __future__ import annotations

import pytest

from common.optional import import_optional


def test_an_installed_module_is_imported():
    assert import_optional("os.path", "finding files").join("a", "b")


def test_the_message_names_the_package_its_purpose_and_the_requirements():
    with pytest.raises(ModuleNotFoundError) as caught:
        import_optional("no_such_package.part", "writing videos", "requirements/app.txt")
    for part in (
        "writing videos",
        "package no_such_package",
        "pip install -r requirements/app.txt",
    ):
        assert part in str(caught.value)
