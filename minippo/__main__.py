"""python -m minippo COMMAND"""
from minippo.run.commands import main

main()
