"""Asks every question of every configuration and stores the answers; resumable."""
