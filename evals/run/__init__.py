"""Ask every question under every setup and store the answers, resumably."""
