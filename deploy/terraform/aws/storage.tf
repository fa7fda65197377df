# Models: read by all pods, written when they are fetched or uploaded.

resource "aws_efs_file_system" "models" {
  creation_token   = "${var.name}-models"
  encrypted        = true
  throughput_mode  = "elastic"
  performance_mode = "generalPurpose"

  tags = { Name = "${var.name}-models" }
}

resource "aws_security_group" "models" {
  name_prefix = "${var.name}-models-"
  description = "NFS from the cluster's machines"
  vpc_id      = module.vpc.vpc_id

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "models" {
  security_group_id            = aws_security_group.models.id
  referenced_security_group_id = module.eks.node_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = 2049
  to_port                      = 2049
}

resource "aws_efs_mount_target" "models" {
  count = length(local.zones)

  file_system_id  = aws_efs_file_system.models.id
  subnet_id       = module.vpc.private_subnets[count.index]
  security_groups = [aws_security_group.models.id]
}

# Whoever mounts by it is Starling's user, whatever he says.
resource "aws_efs_access_point" "models" {
  file_system_id = aws_efs_file_system.models.id

  posix_user {
    uid = 10001
    gid = 10001
  }

  root_directory {
    path = "/models"

    creation_info {
      owner_uid   = 10001
      owner_gid   = 10001
      permissions = "0750"
    }
  }
}

resource "aws_ecr_repository" "starling" {
  name                 = var.name
  image_tag_mutability = "IMMUTABLE"
  # Images can be built again.
  force_delete = true

  image_scanning_configuration {
    scan_on_push = true
  }
}
