"""Passwords and tokens are masked in text, at any position and from any source."""

import json
import time

import pytest

from ensdistill.runtime.secrets import HIDDEN, cleaned, register, secrets_of, without_credentials, without_secrets


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://me:planted1@host:5000", "http://***@host:5000"),
        ("https://planted2@host/path", "https://***@host/path"),  # a token as the user name
        ("https://planted3:x-oauth-basic@host", "https://***@host"),
        ("http://:planted4@host", "http://***@host"),
        ("http://me:pl@nted5@host", "http://***@host"),
        ("http://me:plan/ted6@host/x", "http://***@host/x"),
        ("http://me:plan#ted7?@host/x", "http://***@host/x"),
        ("postgresql://me:planted8@host:5432/db", "postgresql://me:***@host:5432/db"),
        (
            "postgresql+psycopg://host/db?user=me&password=planted9&x=1",
            "postgresql+psycopg://host/db?user=me&password=***&x=1",
        ),
        ("mysql://host/db?ssl_key=a&auth_token=planted10", "mysql://host/db?ssl_key=a&auth_token=***"),
        ("mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Dplanted11", "mssql+pyodbc:///?odbc_connect=***"),
    ],
)
def test_a_uri_is_printed_without_its_credentials(uri: str, shown: str) -> None:
    assert without_credentials(uri) == shown
    assert without_secrets(f"request to {uri} failed ({uri} )") == f"request to {shown} failed ({shown} )"
    assert without_secrets(without_credentials(uri)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://host:5000/a@b",
        "http://[::1]:5000/a@b",
        "sqlite:////home/me:x@work/mlflow.db",
        "file:///a/b:c@d",
        "postgresql://postgres@/postgres?host=/tmp/x",
        "models:/NAME@champion",
        "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=a-1",
        "mail to me@example.org, git@github.com:me/x",
        "trial 12: val/nll 0.1234",
    ],
)
def test_text_without_secrets_is_unchanged(text: str) -> None:
    assert without_secrets(text) == text


def test_a_registered_secret_is_masked_however_it_is_quoted() -> None:
    register("http://me:pass%20w/ord!@host")
    for form in ("pass w/ord!", "pass%20w/ord!", "pass%20w%2Ford%21", "pass+w%2Ford%21", "bWU6cGFzcyB3L29yZCE="):
        assert without_secrets(f"authentication of 'me' with {form!r} failed") == (
            f"authentication of 'me' with '{HIDDEN}' failed"
        ), form


def test_the_secrets_of_several_stores_are_masked() -> None:
    register("http://me:first-planted@host")
    register("postgresql://me:second-planted@host/db")
    assert without_secrets("first-planted second-planted") == f"{HIDDEN} {HIDDEN}"


@pytest.mark.parametrize(
    "name",
    [
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "DATABRICKS_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_ACCESS_KEY_ID",
        "PGPASSWORD",
        "MYSQL_PWD",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "MY_API_KEY",
    ],
)
def test_a_secret_in_an_environment_variable_is_masked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "planted-value\n")
    assert (
        without_secrets(r"Invalid header value b'Bearer planted-value\n'")
        == rf"Invalid header value b'Bearer {HIDDEN}\n'"
    )
    assert without_secrets("planted-value") == HIDDEN


def test_a_password_in_a_uri_in_an_environment_variable_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:planted-proxy@proxy:80")
    assert without_secrets("proxy refused planted-proxy") == f"proxy refused {HIDDEN}"


@pytest.mark.parametrize(
    ("name", "value"),
    [("PWD", "/srv/project"), ("TOKENIZERS_PARALLELISM", "falsely"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/token")],
)
def test_the_value_of_an_environment_variable_without_a_secret_is_not_masked(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert without_secrets(f"in {value} it is") == f"in {value} it is"


@pytest.mark.parametrize("text", ["password=planted", "host=h password=planted user=me", "PWD=planted;UID=me"])
def test_the_password_in_a_connection_string_is_masked(text: str) -> None:
    assert "planted" not in without_secrets(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("URL(username='me', password='pl \\'anted', host='h')", "URL(username='me', password='***', host='h')"),
        ("password = planted dbname=x", "password = *** dbname=x"),
        ('{"password": "pl\\"anted", "n": 1}', '{"password": "***", "n": 1}'),
        ("{'api_key': 'planted'}", "{'api_key': '***'}"),
        ("password: planted\nhost: h", "password: ***\nhost: h"),
        ("-H 'X-Api-Key: planted1'", "-H 'X-Api-Key: ***'"),
        ("export MLFLOW_TRACKING_TOKEN=planted", "export MLFLOW_TRACKING_TOKEN=***"),
        ("url: /?access_token=planted&n=1", "url: /?access_token=***&n=1"),
        ("login with hf_plantedplantedplantedplanted", "login with ***"),
        ("key AKIAPLANTEDPLANTED01 is unknown", "key *** is unknown"),
    ],
)
def test_an_unregistered_secret_is_recognized_from_the_preceding_text(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_json_stays_valid_if_values_under_secret_names_are_numbers() -> None:
    text = '{"class": "token", "probabilities": {"token": 0.25, "password": 0.5, "secret": 0.25}}'
    assert without_secrets(text) == text


def test_masking_a_long_text_is_fast() -> None:
    began = time.perf_counter()
    without_secrets("a-token" * 30_000 + "=" + "password" * 30_000)
    assert time.perf_counter() - began < 5


def test_masking_nested_values_keeps_numbers_and_keys() -> None:
    register("http://me:12345678@host")
    tree = {"at": 12345678, "share": 0.12345678, "error": "12345678 refused", "12345678": [1.5, None, True]}
    assert json.loads(json.dumps(cleaned(tree))) == tree | {"error": f"{HIDDEN} refused"}


def test_a_password_that_is_a_common_word_is_not_masked_in_other_text() -> None:
    register("postgresql://mlflow:mlflow@host/mlflow")
    assert without_secrets("mlflow.db of the experiment mlflow") == "mlflow.db of the experiment mlflow"
    assert secrets_of("no uri at all") == set()
