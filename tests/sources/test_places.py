from __future__ import annotations

import pytest

from thresher.sources.places import folder_name, shown


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("/a/b.c/train.tar", "train"),
        ("https://host.org/a/train.tar", "train"),
        ("https://host.org/a/train.tar?X-Signature=s3cret/s3cret.tar#s3cret", "train"),
        ("HTTPS://me:s3cret@host.org/?sig=s3cret", "host-org"),
        ("https://me:s3@cret@host.org", "host-org"),
        ("https://host.org/{00..09}.tar?sig=s3cret", "00-09"),
        ("s3://bucket", "bucket"),
        ("s3://bucket/a b/", "a-b"),
        ("file:///x/c%20d.tar", "c-d"),
        ("/", "data"),
    ],
)
def test_folders_of_results_are_named_without_secrets(data: str, name: str) -> None:
    assert folder_name(data) == name


def test_what_is_shown_is_without_secrets() -> None:
    assert shown("HTTPS://me:s3@cret@host.org/a?sig=s3cret") == "HTTPS://host.org/a"
    assert shown("s3://bucket/a@b?c") == "s3://bucket/a@b?c"
