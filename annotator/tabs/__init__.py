"""The page: markup of each tab. What it shows comes from the routes, by the scripts in static/."""
