"""Asks every question of every setup and stores the answers; resumable."""
