"""`python -m anyscheduler`, the same as the command `anyscheduler`."""

from anyscheduler.cli import main

if __name__ == "__main__":
    main(prog_name="anyscheduler")
