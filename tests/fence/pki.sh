# Certificates for libvirt at node1 and a client of it, for the suite fence and the benchmark.
mkdir -p /srv/vms/pki; cd /srv/vms/pki
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=lab-ca -keyout ca.key -out ca.pem -addext keyUsage=keyCertSign 2>/dev/null
for name in server client; do
	openssl req -newkey rsa:2048 -nodes -subj /CN=node1 -keyout $name.key -out $name.csr 2>/dev/null
	printf 'basicConstraints=CA:FALSE\nsubjectAltName=DNS:node1\nkeyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth,clientAuth' >ext
	openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $name.pem 2>/dev/null
done
