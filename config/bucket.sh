# Run once by `bucket` of docker-compose.production.yml, and whenever it is begun again: makes the bucket, and an
# account that may use it alone. MinIO's own account is not given to the nodes.
set -eu
secret() { cat "/run/secrets/$1"; }
export MC_HOST_store="http://root:$(secret minio.root_password)@minio:9000"
mc mb --ignore-existing store/secureconnect
mc admin policy create store secureconnect /etc/minio-policy.json
mc admin user add store secureconnect "$(secret minio.secret_key)"
mc admin policy attach store secureconnect --user secureconnect || mc admin user info store secureconnect
