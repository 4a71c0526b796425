"""Sources of data: tables with their splits and test masks, fields, their preparation."""
