from sft.cli import run

run()
