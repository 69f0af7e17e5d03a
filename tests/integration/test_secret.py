"""The database's credentials in Secrets Manager, on LocalStack."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from stacworker.aws import Aws
from stacworker.database import Database
from stacworker.errors import ConfigError, Unavailable
from stacworker.parts import secret_credentials
from stacworker.testing.postgres import Postgres


async def test_a_secret_is_read_for_each_connection(aws: Aws, secretsmanager: Any, postgres: Postgres) -> None:
    """It opens the database; when it turns bad later that is an outage, and no item is to blame."""
    secret = {
        "username": "postgres",
        "password": "p@ss/w:rd%",
        "host": "127.0.0.1",
        "port": postgres.port,
        "dbname": "postgres",
    }
    name = f"database-{uuid.uuid4().hex}"
    arn = secretsmanager.create_secret(Name=name, SecretString=json.dumps(secret))["ARN"]
    async with aws.client("secretsmanager") as client:
        credentials = secret_credentials(client, arn)
        async with Database(credentials) as database:
            await database.ping()
        secretsmanager.put_secret_value(SecretId=arn, SecretString=json.dumps({**secret, "port": 1}))
        async with Database(credentials) as database:
            with pytest.raises(Unavailable):
                await database.ping()
        secretsmanager.put_secret_value(SecretId=arn, SecretString="{}")
        with pytest.raises(Unavailable, match="the secret has no username"):
            await credentials()
        secretsmanager.delete_secret(SecretId=arn, ForceDeleteWithoutRecovery=True)
        with pytest.raises(Unavailable, match="ResourceNotFound"):
            await credentials()
        with pytest.raises(ConfigError, match=r"database\.secret_arn: .*ResourceNotFound"):
            await secret_credentials(client, arn)()
