from __future__ import annotations

import pytest

from common.optional import import_optional


def test_the_message_names_the_package_its_purpose_and_the_requirements():
    assert import_optional("os.path", "finding files").join("a", "b")
    message = r"writing videos needs the package no_such_package,.*-r requirements/app.txt"
    with pytest.raises(ModuleNotFoundError, match=message):
        import_optional("no_such_package.part", "writing videos", "requirements/app.txt")
