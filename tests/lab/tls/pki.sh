# An authority in this folder and certificates of it, each good for a server and for a client, all with the key node.key: node for the names
# that are told first ("DNS:node1,IP:10.77.0.1"), old for the same but expired, other for those told second. For the lab and the benchmark.
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=lab-ca -keyout ca.key -out ca.pem -addext keyUsage=keyCertSign
openssl req -newkey rsa:2048 -nodes -subj /CN=node -keyout node.key -out node.csr
sign() {
	printf 'basicConstraints=CA:FALSE\nsubjectAltName=%s\nkeyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth,clientAuth' "$3" >ext
	openssl x509 -req -in node.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days "$2" -extfile ext -out "$1.pem"
}
sign node 30 "$1"
sign old -1 "$1"
sign other 30 "$2"
