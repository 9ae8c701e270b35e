"""The stages that `instream bench` measures, one file each."""
