"""What is known of particles and maps, and what is shown, without Qt."""
