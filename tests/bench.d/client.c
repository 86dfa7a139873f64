/*
 * The least a program can do to learn from libvirt whether a domain runs: the measure for `monitor`.
 *
 *   cc -O2 -o client client.c -lvirt
 *   client URI DOMAIN        0: it runs; 1: it does not, or there is no answer; 2: wrong call
 */
#include <stdio.h>
#include <libvirt/libvirt.h>

int main(int argc, char **argv)
{
    int state = VIR_DOMAIN_NOSTATE, reason = 0, found = -1;

    if (argc != 3) {
        fprintf(stderr, "usage: %s URI DOMAIN\n", argv[0]);
        return 2;
    }

    virConnectPtr conn = virConnectOpen(argv[1]);
    if (!conn)
        return 1;

    virDomainPtr dom = virDomainLookupByName(conn, argv[2]);
    if (dom) {
        found = virDomainGetState(dom, &state, &reason, 0);
        virDomainFree(dom);
    }
    virConnectClose(conn);
    return found == 0 && state == VIR_DOMAIN_RUNNING ? 0 : 1;
}
