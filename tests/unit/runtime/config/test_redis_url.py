"""What a Redis URL may say, and how one that says nothing useful is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.runtime.config.redis_url import RedisAddress, parse_redis_url, without_password
from actors.runtime.config.settings import load_settings
from protocol.errors import ConfigurationError

TAKEN = {
    "redis://localhost": RedisAddress("server", False, (("localhost", 6379),)),
    "redis://127.0.0.1:6380/2": RedisAddress("server", False, (("127.0.0.1", 6380),), db=2),
    "redis://h:1/": RedisAddress("server", False, (("h", 1),)),
    "redis://[::1]:6380": RedisAddress("server", False, (("::1", 6380),)),
    "rediss://exam:p%40ss@h": RedisAddress("server", True, (("h", 6379),), username="exam", password="p@ss"),
    "redis://:only@h": RedisAddress("server", False, (("h", 6379),), password="only"),
    "unix:///run/redis.sock": RedisAddress("unix", False, path="/run/redis.sock"),
    "unix://exam:pw@/run/redis.sock?db=3": RedisAddress(
        "unix", False, path="/run/redis.sock", db=3, username="exam", password="pw"
    ),
    "redis+sentinel://a,b:26380/mymaster/1": RedisAddress(
        "sentinel", False, (("a", 26379), ("b", 26380)), service="mymaster", db=1
    ),
    "rediss+sentinel://u:p@a/exam": RedisAddress(
        "sentinel", True, (("a", 26379),), service="exam", username="u", password="p"
    ),
    "redis+cluster://a:7000,b": RedisAddress("cluster", False, (("a", 7000), ("b", 6379))),
    "rediss+cluster://a/0": RedisAddress("cluster", True, (("a", 6379),)),
}


@pytest.mark.parametrize("url", TAKEN)
def test_a_url_is_parsed(url: str) -> None:
    assert parse_redis_url(url) == TAKEN[url]


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "must begin with"),
        ("127.0.0.1:6379", "must begin with"),
        ("http://h", "must begin with"),
        ("redis://", "a host is missing"),
        ("redis://h:port", "is no host:port"),
        ("redis://h:70000", "70000 is not a port"),
        ("redis://h:0", "0 is not a port"),
        ("redis://::1:6379", "is no host:port"),
        ("redis://a,b", "several hosts"),
        ("redis://h/first", "number of a database"),
        ("redis://h/0/1", "number of a database"),
        ("redis://h?ssl=true", "no options"),
        ("redis+sentinel://a:26379", "must name the master"),
        ("redis+sentinel://a:26379/0", None),  # a master may be called so
        ("redis+sentinel://a,/mymaster", "a host is missing"),
        ("redis+cluster://a/2", "a cluster has only 0"),
        ("unix://run/redis.sock", "three slashes"),
        ("unix:///run/redis.sock?db=x", "db=NUMBER"),
    ],
)
def test_an_invalid_url_is_refused_with_its_reason(url: str, complaint: str | None) -> None:
    if complaint is None:
        parse_redis_url(url)
        return
    with pytest.raises(ValueError, match=complaint):
        parse_redis_url(url)
    with pytest.raises(ConfigurationError, match="redis_url: "):
        load_settings(redis_url=url)


@pytest.mark.parametrize("secret", ["s/cret", "s@cret", "s?cret", "s,cret", "s,c@r/e?t"])
def test_a_password_that_breaks_the_url_is_refused_without_showing_it(secret: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(redis_url=f"redis://exam:{secret}@h:6379/0")
    assert "%2F" in str(refused.value)
    assert "cret" not in str(refused.value)


def test_shown_urls_have_no_password() -> None:
    url = "redis+sentinel://exam:p%40ss@a:26379,b:26379/mymaster/0"
    assert without_password(url) == "redis+sentinel://a:26379,b:26379/mymaster/0"


def test_certificate_files_must_exist_and_be_used(tmp_path: Path) -> None:
    pem = tmp_path / "one.pem"
    pem.touch()
    for flags, complaint in (
        ({"redis_url": "rediss://h", "redis.ca_file": tmp_path / "none.pem"}, "redis.ca_file: "),
        ({"redis_url": "rediss://h", "redis.cert_file": pem}, "cert_file and key_file go together"),
        ({"redis_url": "redis://h", "redis.ca_file": pem}, "has no TLS"),
    ):
        with pytest.raises(ConfigurationError, match=complaint):
            load_settings(**flags)
    assert load_settings(**{"redis_url": "rediss://h", "redis.ca_file": pem}).redis.ca_file == pem
