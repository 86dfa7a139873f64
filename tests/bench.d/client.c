/*
 * The least that a program does through libvirt to ask, start or end a guest: the measure for `monitor`, `start` and `stop`.
 *
 *   cc -O2 -o client client.c -lvirt
 *   client URI monitor DOMAIN     does it run?
 *   client URI start FILE         creates it from a definition, as a transient domain
 *   client URI stop DOMAIN        asks it to shut down and waits until libvirt does not know it as active any more
 *   client URI destroy DOMAIN     ends it
 *
 * 0: done, or it runs; 1: not, or there is no answer; 2: wrong call.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

static int monitor(virDomainPtr dom)
{
    int state = VIR_DOMAIN_NOSTATE, reason = 0;
    return virDomainGetState(dom, &state, &reason, 0) == 0 && state == VIR_DOMAIN_RUNNING ? 0 : 1;
}

static int start(virConnectPtr conn, const char *path)
{
    static char xml[65536];
    FILE *file = fopen(path, "r");
    if (!file)
        return 1;
    size_t length = fread(xml, 1, sizeof(xml) - 1, file);
    fclose(file);
    xml[length] = '\0';
    virDomainPtr dom = virDomainCreateXML(conn, xml, 0);
    if (!dom)
        return 1;
    virDomainFree(dom);
    return 0;
}

static int stop(virDomainPtr dom)
{
    if (virDomainShutdown(dom) < 0)
        return 1;
    while (virDomainIsActive(dom) == 1)
        nanosleep(&(struct timespec){ .tv_nsec = 10 * 1000 * 1000 }, NULL);
    return 0;
}

static void quiet(void *data, virErrorPtr error)
{
    (void)data;
    (void)error;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: %s URI monitor|start|stop|destroy DOMAIN|FILE\n", argv[0]);
        return 2;
    }
    /* A domain that is gone is an error to libvirt, and what is waited for here. */
    virSetErrorFunc(NULL, quiet);
    virConnectPtr conn = virConnectOpen(argv[1]);
    if (!conn)
        return 1;
    int code = 1;
    if (strcmp(argv[2], "start") == 0) {
        code = start(conn, argv[3]);
    } else {
        virDomainPtr dom = virDomainLookupByName(conn, argv[3]);
        if (dom) {
            if (strcmp(argv[2], "stop") == 0)
                code = stop(dom);
            else if (strcmp(argv[2], "destroy") == 0)
                code = virDomainDestroy(dom) == 0 ? 0 : 1;
            else
                code = monitor(dom);
            virDomainFree(dom);
        }
    }
    virConnectClose(conn);
    return code;
}
