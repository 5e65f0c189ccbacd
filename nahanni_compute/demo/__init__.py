"""The main job on real data: a year of flights, analysed part by part on the workers, and the answer checked."""
