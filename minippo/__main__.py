"""python -m minippo COMMAND"""

from minippo.run.commands import main

if __name__ == "__main__":
    main()
