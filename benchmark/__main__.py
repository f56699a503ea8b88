"""The entry point of hift-bench: the command line, or one line where only the engine is installed."""

import sys


def main() -> None:
    """Run the command line. Exits with 2 where a package of the extra `suite` is missing."""
    try:
        from benchmark import cli
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package in ("benchmark", "tasks"):
            raise
        sys.stderr.write(f"hift-bench: {package} is missing: pip install 'hift-benchmark[suite]'\n")
        sys.exit(2)
    cli.main()


if __name__ == "__main__":
    main()
