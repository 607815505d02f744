"""The report: one HTML page that people pass around, with the pictures to judge and a reason for each missing one."""
