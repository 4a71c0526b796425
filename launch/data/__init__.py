"""Sources of data: tables, their splits and test masks."""
