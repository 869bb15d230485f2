"""What TensorFlow writes to stderr is shown with an error only."""

from __future__ import annotations

import os

import pytest

from genre.models import keras_backend


@pytest.mark.parametrize(("error", "shown"), [(KeyboardInterrupt, ""), (ValueError, "noise of native code")])
def test_ctrl_c_shows_no_noise_and_an_error_does(
    error: type[BaseException], shown: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(error), keras_backend.quiet():
        os.write(2, b"noise of native code")
        raise error
    assert capfd.readouterr().err == shown
