"""Cases of a test program in Python, and TAP about them."""

CASES = []


def case(description):
    """A decorator: the function is a case; it fails by raising."""
    return lambda function: CASES.append((description, function))


def run():
    """Runs all of them. True if one failed."""
    print("1..%d" % len(CASES))
    failed = False
    for number, (description, function) in enumerate(CASES, 1):
        try:
            function()
            print("ok %d - %s" % (number, description), flush=True)
        except Exception as error:
            failed = True
            print("# %s: %s" % (type(error).__name__, str(error).replace("\n", "\n# ")))
            print("not ok %d - %s" % (number, description), flush=True)
    return failed
