/** What tgtadm 1.0.85 printed. */

export const system = `System:
    State: ready
    debug: off
LLDs:
    iscsi: ready
    iser: error
Backing stores:
    sheepdog
    bsg
    sg
    null
    ssc
    smc (bsoflags sync:direct)
    mmc (bsoflags sync:direct)
    rdwr (bsoflags sync:direct)
    aio
Device types:
    disk
    cd/dvd
    osd
    controller
    changer
    tape
    passthrough
iSNS:
    iSNS=Off
    iSNSServerIP=
    iSNSServerPort=3205
    iSNSAccessControl=Off
`;

export const portals = `Portal: [fe80::fc:ff:fe00:1]:45083,1
Portal: [::1]:46599,1
Portal: 127.0.0.1:13321,1
`;

/** After a start with a portal that was taken. */
export const wildcardPortals = `Portal: [::]:3260,1
Portal: 0.0.0.0:3260,1
`;

export const accounts = `Account list:
    u2
    v1
    u1
`;

export const connections = `Session: 1
    Connection: 0
        Initiator: iqn.2024-01.test:probe
        IP Address: ::1
Session: 12
    Connection: 3
        Initiator: iqn.2024-01.test:other
        IP Address: 192.0.2.7
`;

export const statistics =
  `tgt lun sid rd_subm(bytes,cmds) rd_done(bytes,cmds) wr_subm(bytes,cmds) wr_done(bytes,cmds) errs
  1   0   1            0      0            0      0            0      0            0      0    0
  1   1   1        16384      3        12288      2          512      1          512      1    2
`;

const controller = (tid: number) =>
  `        LUN: 0
            Type: controller
            SCSI ID: IET     000${tid}0000
            SCSI SN: beaf${tid}0
            Size: 0 MB, Block size: 1
            Online: Yes
            Removable media: No
            Prevent removal: No
            Readonly: No
            SWP: No
            Thin-provisioning: No
            Backing store type: null
            Backing store path: None
            Backing store flags: 
`;

export const targets = `Target 1: iqn.2024-01.x:a
    System information:
        Driver: iscsi
        State: ready
        Nop interval: 5
        Nop count: 3
    I_T nexus information:
        I_T nexus: 1
            Initiator: iqn.2024-01.test:probe alias: none
            Connection: 0
                IP Address: ::1
    LUN information:
${controller(1)}        LUN: 1
            Type: disk
            SCSI ID: abc-1
            SCSI SN: abc-1
            Size: 1 MB, Block size: 512
            Online: Yes
            Removable media: No
            Prevent removal: No
            Readonly: Yes
            SWP: No
            Thin-provisioning: No
            Backing store type: rdwr
            Backing store path: disks/1
            Backing store flags: direct
    Account information:
        u1
        v1 (outgoing)
    ACL information:
        ::1
Target 2: iqn.2024-01.x:b
    System information:
        Driver: iscsi
        State: ready
        Nop interval: 5
        Nop count: 3
    I_T nexus information:
    LUN information:
${controller(2)}        LUN: 1
            Type: disk
            SCSI ID: abc-2
            SCSI SN: abc-2
            Size: 1 MB, Block size: 4096
            Online: Yes
            Removable media: No
            Prevent removal: No
            Readonly: Yes
            SWP: No
            Thin-provisioning: No
            Backing store type: rdwr
            Backing store path: disks/2
            Backing store flags: 
    Account information:
        u2
    ACL information:
        ::1
`;
