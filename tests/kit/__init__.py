"""What the tests stand on: a real server as a process, people with clients, a proxy that breaks things."""
