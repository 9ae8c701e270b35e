"""The deep audit's comparisons: what lies in one place against what another place says."""
