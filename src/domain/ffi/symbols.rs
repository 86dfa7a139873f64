//! The functions of libvirt.so.0 that get a trampoline: all that the source of `virt` 0.5.0 calls, and what `domain/ffi.rs` adds.
//!
//! Divided by what a function answers on failure, as declared in libvirt's headers: it decides what the program sees where
//! the installed libvirt is too old to have the function. Sorted, so that a difference is easy to read.
//!
//! A function that is missing here is found by the ordinary linker, which then makes the binary need libvirt at exec:
//! the test `libvirt_is_not_there_before_it_is_needed` of `late.rs` notices. To make the list again after an update of `virt`:
//! `grep -rhoE '\bsys::vir[A-Z][A-Za-z0-9]*' src | sort -u` in its source, less the types and the two functions of libvirt-qemu.so.0.

/// Calls the macro `$then` with the names.
macro_rules! libvirt_symbols {
    ($then:ident) => {
        $then! {
            // A pointer, or an amount of memory; NULL or 0 on failure.
            zero: {
                virConnectBaselineCPU virConnectDomainXMLFromNative virConnectDomainXMLToNative virConnectFindStoragePoolSources
                virConnectGetCapabilities virConnectGetDomainCapabilities virConnectGetHostname virConnectGetSysinfo virConnectGetType
                virConnectGetURI virConnectOpen virConnectOpenAuth virConnectOpenReadOnly virDomainCreateXML virDomainDefineXML
                virDomainDefineXMLFlags virDomainGetConnect virDomainGetHostname virDomainGetMaxMemory virDomainGetMetadata
                virDomainGetName virDomainGetOSType virDomainGetSchedulerType virDomainGetXMLDesc virDomainLookupByID
                virDomainLookupByName virDomainLookupByUUID virDomainLookupByUUIDString virDomainMigrate virDomainMigrate2
                virDomainMigrate3 virDomainSaveImageGetXMLDesc virDomainScreenshot virDomainSnapshotCreateXML virDomainSnapshotCurrent
                virDomainSnapshotGetConnect virDomainSnapshotGetDomain virDomainSnapshotGetName virDomainSnapshotGetParent
                virDomainSnapshotGetXMLDesc virDomainSnapshotLookupByName virGetLastError virInterfaceDefineXML virInterfaceGetConnect
                virInterfaceGetMACString virInterfaceGetName virInterfaceGetXMLDesc virInterfaceLookupByMACString virInterfaceLookupByName
                virNWFilterDefineXML virNWFilterGetName virNWFilterGetXMLDesc virNWFilterLookupByName virNWFilterLookupByUUID
                virNWFilterLookupByUUIDString virNetworkCreateXML virNetworkDefineXML virNetworkGetBridgeName virNetworkGetConnect
                virNetworkGetName virNetworkGetXMLDesc virNetworkLookupByName virNetworkLookupByUUID virNetworkLookupByUUIDString
                virNodeDeviceCreateXML virNodeDeviceGetName virNodeDeviceGetParent virNodeDeviceGetXMLDesc virNodeDeviceLookupByName
                virNodeDeviceLookupSCSIHostByWWN virNodeGetFreeMemory virSecretDefineXML virSecretGetConnect virSecretGetUsageID
                virSecretGetValue virSecretGetXMLDesc virSecretLookupByUUID virSecretLookupByUUIDString virSecretLookupByUsage
                virStoragePoolCreateXML virStoragePoolDefineXML virStoragePoolGetConnect virStoragePoolGetName virStoragePoolGetXMLDesc
                virStoragePoolLookupByName virStoragePoolLookupByTargetPath virStoragePoolLookupByUUID virStoragePoolLookupByUUIDString
                virStoragePoolLookupByVolume virStorageVolCreateXML virStorageVolCreateXMLFrom virStorageVolGetConnect virStorageVolGetKey
                virStorageVolGetName virStorageVolGetPath virStorageVolGetXMLDesc virStorageVolLookupByKey virStorageVolLookupByName
                virStorageVolLookupByPath virStreamNew
            }
            // A number, -1 on failure; and the few without an answer.
            minus_one: {
                virConnectClose virConnectCompareCPU virConnectCompareHypervisorCPU virConnectGetAllDomainStats virConnectGetCPUModelNames virConnectGetLibVersion
                virConnectGetMaxVcpus virConnectGetVersion virConnectIsAlive virConnectIsEncrypted virConnectIsSecure
                virConnectListAllDomains virConnectListAllInterfaces virConnectListAllNWFilters virConnectListAllNetworks
                virConnectListAllNodeDevices virConnectListAllSecrets virConnectListAllStoragePools virConnectListDefinedDomains
                virConnectListDefinedInterfaces virConnectListDefinedNetworks virConnectListDefinedStoragePools virConnectListDomains
                virConnectListInterfaces virConnectListNWFilters virConnectListNetworks virConnectListSecrets virConnectListStoragePools
                virConnectNumOfDefinedDomains virConnectNumOfDefinedInterfaces virConnectNumOfDefinedNetworks
                virConnectNumOfDefinedStoragePools virConnectNumOfDomains virConnectNumOfInterfaces virConnectNumOfNWFilters
                virConnectNumOfNetworks virConnectNumOfSecrets virConnectNumOfStoragePools virConnectRef virConnectSetKeepAlive
                virDomainAbortJob virDomainAttachDevice virDomainAttachDeviceFlags virDomainBlockResize virDomainBlockStats
                virDomainCoreDump virDomainCoreDumpWithFormat virDomainCreate virDomainCreateWithFlags virDomainDestroy
                virDomainDestroyFlags virDomainDetachDevice virDomainDetachDeviceFlags virDomainFree virDomainGetAutostart
                virDomainGetBlockInfo virDomainGetBlockJobInfo virDomainGetCPUStats virDomainGetControlInfo virDomainGetDiskErrors virDomainGetID virDomainGetInfo
                virDomainGetJobInfo virDomainGetJobStats virDomainGetMaxVcpus virDomainGetMemoryParameters virDomainGetNumaParameters
                virDomainGetSchedulerParameters virDomainGetSchedulerParametersFlags virDomainGetState virDomainGetTime virDomainGetUUID
                virDomainGetUUIDString virDomainGetVcpusFlags virDomainHasManagedSaveImage virDomainInterfaceAddresses
                virDomainInterfaceStats virDomainIsActive virDomainIsPersistent virDomainIsUpdated virDomainListAllSnapshots
                virDomainManagedSave virDomainManagedSaveRemove virDomainMemoryStats virDomainMigrateGetCompressionCache
                virDomainMigrateGetMaxSpeed virDomainMigrateSetCompressionCache virDomainMigrateSetMaxDowntime virDomainMigrateSetMaxSpeed
                virDomainMigrateStartPostCopy virDomainMigrateToURI virDomainMigrateToURI2 virDomainMigrateToURI3 virDomainOpenChannel
                virDomainOpenConsole virDomainOpenGraphics virDomainOpenGraphicsFD virDomainPMWakeup virDomainPinEmulator virDomainPinVcpu
                virDomainPinVcpuFlags virDomainReboot virDomainRef virDomainRename virDomainReset virDomainRestore virDomainRestoreFlags
                virDomainResume virDomainRevertToSnapshot virDomainSaveFlags virDomainSaveImageDefineXML virDomainSendKey virDomainSetAutostart
                virDomainSetBlockThreshold virDomainSetLifecycleAction virDomainSetMaxMemory virDomainSetMemory virDomainSetMemoryFlags
                virDomainSetMemoryParameters virDomainSetMemoryStatsPeriod virDomainSetMetadata virDomainSetNumaParameters
                virDomainSetSchedulerParameters virDomainSetSchedulerParametersFlags virDomainSetTime virDomainSetUserPassword
                virDomainSetVcpus virDomainSetVcpusFlags virDomainShutdown virDomainShutdownFlags virDomainSnapshotDelete
                virDomainSnapshotFree virDomainSnapshotHasMetadata virDomainSnapshotIsCurrent virDomainSnapshotListAllChildren
                virDomainSnapshotNum virDomainSnapshotNumChildren virDomainSnapshotRef virDomainSuspend virDomainUndefine
                virDomainUndefineFlags virDomainUpdateDeviceFlags virEventAddHandle virEventAddTimeout virEventRegisterDefaultImpl
                virEventRemoveHandle virEventRemoveTimeout virEventRunDefaultImpl virEventUpdateHandle virEventUpdateTimeout virGetVersion
                virInterfaceCreate virInterfaceDestroy virInterfaceFree virInterfaceIsActive virInterfaceRef virInterfaceUndefine
                virNWFilterFree virNWFilterGetUUID virNWFilterGetUUIDString virNWFilterRef virNWFilterUndefine virNetworkCreate
                virNetworkDestroy virNetworkFree virNetworkGetAutostart virNetworkGetUUID virNetworkGetUUIDString virNetworkIsActive
                virNetworkIsPersistent virNetworkRef virNetworkSetAutostart virNetworkUndefine virNetworkUpdate virNodeDeviceDestroy
                virNodeDeviceDetachFlags virNodeDeviceDettach virNodeDeviceFree virNodeDeviceListCaps virNodeDeviceNumOfCaps
                virNodeDeviceReAttach virNodeDeviceRef virNodeDeviceReset virNodeAllocPages virNodeGetCPUStats virNodeGetCellsFreeMemory
                virNodeGetFreePages virNodeGetInfo virNodeGetMemoryStats
                virNodeNumOfDevices virSecretFree virSecretGetUUID virSecretGetUUIDString virSecretGetUsageType virSecretRef
                virSecretSetValue virSecretUndefine virSetErrorFunc virStoragePoolBuild virStoragePoolCreate virStoragePoolDelete
                virStoragePoolDestroy virStoragePoolFree virStoragePoolGetAutostart virStoragePoolGetInfo virStoragePoolGetUUID
                virStoragePoolGetUUIDString virStoragePoolIsActive virStoragePoolIsPersistent virStoragePoolListAllVolumes
                virStoragePoolListVolumes virStoragePoolNumOfVolumes virStoragePoolRef virStoragePoolRefresh virStoragePoolSetAutostart
                virStoragePoolUndefine virStorageVolDelete virStorageVolDownload virStorageVolFree virStorageVolGetInfo
                virStorageVolGetInfoFlags virStorageVolRef virStorageVolResize virStorageVolUpload virStorageVolWipe
                virStorageVolWipePattern virStreamAbort virStreamEventAddCallback virStreamEventRemoveCallback
                virStreamEventUpdateCallback virStreamFinish virStreamFree virStreamRecv virStreamRef virStreamSend virTypedParamsFree
            }
        }
    };
}
pub(super) use libvirt_symbols;
