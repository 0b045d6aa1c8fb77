"""The task with known answers, for tests of this folder."""

import level_task as levels
import pytest


@pytest.fixture(scope="session")
def level_task():
    return levels
