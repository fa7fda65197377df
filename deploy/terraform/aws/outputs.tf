output "image_repository" {
  description = "Where `cargo xtask image --push --repository` puts the image."
  value       = aws_ecr_repository.starling.repository_url
}

output "kubeconfig" {
  description = "Command after which kubectl speaks to the cluster."
  value       = "aws eks update-kubeconfig --region ${var.region} --name ${module.eks.cluster_name}"
}

output "sizing" {
  description = "What was worked out for so many callers."
  value       = module.sizing.table
}
