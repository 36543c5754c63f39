"""Our reading of Compose's variables."""

from __future__ import annotations

import pytest

from tests.deploy.composefile import MissingVariableError, substitute


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("${A}", "a"),
        ("x${A}-${E}-${N}", "xa--"),
        ("${N:-none}${E:-empty}${E-set}", "noneempty"),
        ("$${A}", "${A}"),
        ("http://${A:?no}/$$", "http://a/$"),
    ],
)
def test_variables_are_filled_in(text: str, filled: str) -> None:
    assert substitute(text, {"A": "a", "E": ""}) == filled


@pytest.mark.parametrize("text", ["${N:?say}", "${E:?say}", "${N?say}"])
def test_what_must_be_set_must_be_set(text: str) -> None:
    with pytest.raises(MissingVariableError, match="say"):
        substitute(text, {"E": ""})


def test_a_form_that_we_do_not_know_is_refused() -> None:
    with pytest.raises(AssertionError, match="not understood"):
        substitute("$A", {"A": "a"})
