"""Talks to a deployed stack: what it is called there, and the one secret that the template does not hold.

    deployed.py output <stack> <name>    prints one output of the stack
    deployed.py configure <stack>        asks for the Runware API key and puts it into its secret

The key is typed without echo, or read from standard input when that is not a terminal. It is never an argument, so it
reaches neither the shell's history nor the process list.
"""

import getpass
import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError


def output(stack: str, name: str) -> str:
    """The value of one output; raises `KeyError` when the stack has none of this name."""
    description = boto3.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
    outputs = {str(each["OutputKey"]): str(each["OutputValue"]) for each in description.get("Outputs", [])}
    return outputs[name]


def read_key() -> str:
    """The key without surrounding white space; raises `ValueError` when it cannot be one."""
    key = (getpass.getpass("Runware API key: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("That is not an API key; nothing was changed.")
    return key


def configure(stack: str) -> None:
    secret = output(stack, "RunwareSecretArn")
    boto3.client("secretsmanager").put_secret_value(SecretId=secret, SecretString=read_key())
    print(f"The Runware API key of {stack} is set. Functions that are running pick it up within minutes.")


def main(arguments: list[str]) -> None:
    match arguments:
        case ["output", stack, name]:
            print(output(stack, name))
        case ["configure", stack]:
            configure(stack)
        case _:
            raise ValueError("usage: deployed.py output <stack> <name> | configure <stack>")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyError as error:
        sys.exit(f"The stack has no output {error}.")
    except (BotoCoreError, ClientError, ValueError) as error:
        sys.exit(str(error))
