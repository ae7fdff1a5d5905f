from fipbench.cli import main

main()
