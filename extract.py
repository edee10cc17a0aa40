"""`python extract.py ...`: see the README."""

from tinyflux_pl.app.command_line import run

if __name__ == "__main__":
    run("extract")
