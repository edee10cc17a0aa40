"""`python extract.py ...`: see the README."""

from tinyflux_pl.app.cli.command_line import run

if __name__ == "__main__":
    run("extract")
