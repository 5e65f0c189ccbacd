"""Workers: they run ranges of bundles' items and write the results where they will stay."""

if __name__ != "nahanni_compute.workers":
    raise ImportError("import nahanni_compute.workers; the link at the checkout's root is for reading")
