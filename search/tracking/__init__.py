"""What follows a study's numbers besides its records: TensorBoard files, MLflow."""
