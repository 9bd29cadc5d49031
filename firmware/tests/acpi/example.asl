// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The DSDT of a machine with two CPUs, three pools, and three virtio devices: blk0 and blk2 on mmio, blk1 on PCI.
DefinitionBlock ("", "DSDT", 2, "CVMM  ", "CVMMVIRT", 1)
{
    Scope (\_SB)
    {
        Device (C000) { Name (_HID, "ACPI0007") Name (_UID, Zero) }
        Device (C001) { Name (_HID, "ACPI0007") Name (_UID, One) }

        Device (P000)
        {
            Name (_HID, "PRP0001")
            Name (_UID, Zero)
            Name (_CRS, ResourceTemplate ()
            {
                QWordMemory (ResourceConsumer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                    0, 0x04000000, 0x047FFFFF, 0, 0x00800000)
            })
            Name (_DSD, Package ()
            {
                ToUUID ("daffd814-6eba-4d8c-8a91-bc9bbf4aa301"),
                Package () { Package () { "compatible", "restricted-dma-pool" } }
            })
        }

        Device (P001)
        {
            Name (_HID, "PRP0001")
            Name (_UID, One)
            Name (_CRS, ResourceTemplate ()
            {
                QWordMemory (ResourceConsumer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                    0, 0x06000000, 0x06FFFFFF, 0, 0x01000000)
            })
            Name (_DSD, Package ()
            {
                ToUUID ("daffd814-6eba-4d8c-8a91-bc9bbf4aa301"),
                Package ()
                {
                    Package () { "compatible", "restricted-dma-pool" },
                    Package () { "linux,dma-default", One }
                }
            })
        }

        Device (P002)
        {
            Name (_HID, "PRP0001")
            Name (_UID, 2)
            Name (_CRS, ResourceTemplate ()
            {
                QWordMemory (ResourceConsumer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                    0, 0x0000000108000000, 0x00000001097FFFFF, 0, 0x01800000)
            })
            Name (_DSD, Package ()
            {
                ToUUID ("daffd814-6eba-4d8c-8a91-bc9bbf4aa301"),
                Package () { Package () { "compatible", "restricted-dma-pool" } }
            })
        }

        Device (COM1)
        {
            Name (_HID, EisaId ("PNP0501"))
            Name (_UID, Zero)
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadWrite, 0xC1000000, 8)
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 5 }
            })
        }

        Device (PEVT)
        {
            Name (_HID, "QEMU0001")
            Name (_UID, Zero)
            Name (_CRS, ResourceTemplate () { Memory32Fixed (ReadWrite, 0xC1002000, 2) })
        }

        Device (V000)
        {
            Name (_HID, "LNRO0005")
            Name (_UID, Zero)
            Name (_CCA, One)
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadWrite, 0xD0000000, 0x200)
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 23 }
            })
            Name (_DSD, Package ()
            {
                ToUUID ("daffd814-6eba-4d8c-8a91-bc9bbf4aa301"),
                Package () { Package () { "memory-region", Package () { \_SB.P002 } } }
            })
        }

        Device (V002)
        {
            Name (_HID, "LNRO0005")
            Name (_UID, 2)
            Name (_CCA, One)
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadWrite, 0xD0002000, 0x200)
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 21 }
            })
            Name (_DSD, Package ()
            {
                ToUUID ("daffd814-6eba-4d8c-8a91-bc9bbf4aa301"),
                Package () { Package () { "memory-region", Package () { \_SB.P000 } } }
            })
        }

        // Reserves the window of configuration space.
        Device (MBRD)
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_UID, Zero)
            Name (_CRS, ResourceTemplate () { Memory32Fixed (ReadWrite, 0xE0000000, 0x00100000) })
        }

        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A08"))
            Name (_CID, EisaId ("PNP0A03"))
            Name (_SEG, Zero)
            Name (_BBN, Zero)
            Name (_UID, Zero)
            Name (_CCA, One)
            Name (_CRS, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0, 0, 0, 1)
                IO (Decode16, 0x0CF8, 0x0CF8, 1, 8)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                    0, 0xC2000000, 0xC2FFFFFF, 0, 0x01000000)
            })
            // The four lines are 44, 46, 43 and 47; each device starts at the next.
            Name (_PRT, Package ()
            {
                Package () { 0xFFFF, Zero, Zero, 44 }, Package () { 0xFFFF, One, Zero, 46 },
                Package () { 0xFFFF, 2, Zero, 43 }, Package () { 0xFFFF, 3, Zero, 47 },
                Package () { 0x0001FFFF, Zero, Zero, 46 }, Package () { 0x0001FFFF, One, Zero, 43 },
                Package () { 0x0001FFFF, 2, Zero, 47 }, Package () { 0x0001FFFF, 3, Zero, 44 },
                Package () { 0x0002FFFF, Zero, Zero, 43 }, Package () { 0x0002FFFF, One, Zero, 47 },
                Package () { 0x0002FFFF, 2, Zero, 44 }, Package () { 0x0002FFFF, 3, Zero, 46 },
                Package () { 0x0003FFFF, Zero, Zero, 47 }, Package () { 0x0003FFFF, One, Zero, 44 },
                Package () { 0x0003FFFF, 2, Zero, 46 }, Package () { 0x0003FFFF, 3, Zero, 43 },
                Package () { 0x0004FFFF, Zero, Zero, 44 }, Package () { 0x0004FFFF, One, Zero, 46 },
                Package () { 0x0004FFFF, 2, Zero, 43 }, Package () { 0x0004FFFF, 3, Zero, 47 },
                Package () { 0x0005FFFF, Zero, Zero, 46 }, Package () { 0x0005FFFF, One, Zero, 43 },
                Package () { 0x0005FFFF, 2, Zero, 47 }, Package () { 0x0005FFFF, 3, Zero, 44 },
                Package () { 0x0006FFFF, Zero, Zero, 43 }, Package () { 0x0006FFFF, One, Zero, 47 },
                Package () { 0x0006FFFF, 2, Zero, 44 }, Package () { 0x0006FFFF, 3, Zero, 46 },
                Package () { 0x0007FFFF, Zero, Zero, 47 }, Package () { 0x0007FFFF, One, Zero, 44 },
                Package () { 0x0007FFFF, 2, Zero, 46 }, Package () { 0x0007FFFF, 3, Zero, 43 },
                Package () { 0x0008FFFF, Zero, Zero, 44 }, Package () { 0x0008FFFF, One, Zero, 46 },
                Package () { 0x0008FFFF, 2, Zero, 43 }, Package () { 0x0008FFFF, 3, Zero, 47 },
                Package () { 0x0009FFFF, Zero, Zero, 46 }, Package () { 0x0009FFFF, One, Zero, 43 },
                Package () { 0x0009FFFF, 2, Zero, 47 }, Package () { 0x0009FFFF, 3, Zero, 44 },
                Package () { 0x000AFFFF, Zero, Zero, 43 }, Package () { 0x000AFFFF, One, Zero, 47 },
                Package () { 0x000AFFFF, 2, Zero, 44 }, Package () { 0x000AFFFF, 3, Zero, 46 },
                Package () { 0x000BFFFF, Zero, Zero, 47 }, Package () { 0x000BFFFF, One, Zero, 44 },
                Package () { 0x000BFFFF, 2, Zero, 46 }, Package () { 0x000BFFFF, 3, Zero, 43 },
                Package () { 0x000CFFFF, Zero, Zero, 44 }, Package () { 0x000CFFFF, One, Zero, 46 },
                Package () { 0x000CFFFF, 2, Zero, 43 }, Package () { 0x000CFFFF, 3, Zero, 47 },
                Package () { 0x000DFFFF, Zero, Zero, 46 }, Package () { 0x000DFFFF, One, Zero, 43 },
                Package () { 0x000DFFFF, 2, Zero, 47 }, Package () { 0x000DFFFF, 3, Zero, 44 },
                Package () { 0x000EFFFF, Zero, Zero, 43 }, Package () { 0x000EFFFF, One, Zero, 47 },
                Package () { 0x000EFFFF, 2, Zero, 44 }, Package () { 0x000EFFFF, 3, Zero, 46 },
                Package () { 0x000FFFFF, Zero, Zero, 47 }, Package () { 0x000FFFFF, One, Zero, 44 },
                Package () { 0x000FFFFF, 2, Zero, 46 }, Package () { 0x000FFFFF, 3, Zero, 43 },
                Package () { 0x0010FFFF, Zero, Zero, 44 }, Package () { 0x0010FFFF, One, Zero, 46 },
                Package () { 0x0010FFFF, 2, Zero, 43 }, Package () { 0x0010FFFF, 3, Zero, 47 },
                Package () { 0x0011FFFF, Zero, Zero, 46 }, Package () { 0x0011FFFF, One, Zero, 43 },
                Package () { 0x0011FFFF, 2, Zero, 47 }, Package () { 0x0011FFFF, 3, Zero, 44 },
                Package () { 0x0012FFFF, Zero, Zero, 43 }, Package () { 0x0012FFFF, One, Zero, 47 },
                Package () { 0x0012FFFF, 2, Zero, 44 }, Package () { 0x0012FFFF, 3, Zero, 46 },
                Package () { 0x0013FFFF, Zero, Zero, 47 }, Package () { 0x0013FFFF, One, Zero, 44 },
                Package () { 0x0013FFFF, 2, Zero, 46 }, Package () { 0x0013FFFF, 3, Zero, 43 },
                Package () { 0x0014FFFF, Zero, Zero, 44 }, Package () { 0x0014FFFF, One, Zero, 46 },
                Package () { 0x0014FFFF, 2, Zero, 43 }, Package () { 0x0014FFFF, 3, Zero, 47 },
                Package () { 0x0015FFFF, Zero, Zero, 46 }, Package () { 0x0015FFFF, One, Zero, 43 },
                Package () { 0x0015FFFF, 2, Zero, 47 }, Package () { 0x0015FFFF, 3, Zero, 44 },
                Package () { 0x0016FFFF, Zero, Zero, 43 }, Package () { 0x0016FFFF, One, Zero, 47 },
                Package () { 0x0016FFFF, 2, Zero, 44 }, Package () { 0x0016FFFF, 3, Zero, 46 },
                Package () { 0x0017FFFF, Zero, Zero, 47 }, Package () { 0x0017FFFF, One, Zero, 44 },
                Package () { 0x0017FFFF, 2, Zero, 46 }, Package () { 0x0017FFFF, 3, Zero, 43 },
                Package () { 0x0018FFFF, Zero, Zero, 44 }, Package () { 0x0018FFFF, One, Zero, 46 },
                Package () { 0x0018FFFF, 2, Zero, 43 }, Package () { 0x0018FFFF, 3, Zero, 47 },
                Package () { 0x0019FFFF, Zero, Zero, 46 }, Package () { 0x0019FFFF, One, Zero, 43 },
                Package () { 0x0019FFFF, 2, Zero, 47 }, Package () { 0x0019FFFF, 3, Zero, 44 },
                Package () { 0x001AFFFF, Zero, Zero, 43 }, Package () { 0x001AFFFF, One, Zero, 47 },
                Package () { 0x001AFFFF, 2, Zero, 44 }, Package () { 0x001AFFFF, 3, Zero, 46 },
                Package () { 0x001BFFFF, Zero, Zero, 47 }, Package () { 0x001BFFFF, One, Zero, 44 },
                Package () { 0x001BFFFF, 2, Zero, 46 }, Package () { 0x001BFFFF, 3, Zero, 43 },
                Package () { 0x001CFFFF, Zero, Zero, 44 }, Package () { 0x001CFFFF, One, Zero, 46 },
                Package () { 0x001CFFFF, 2, Zero, 43 }, Package () { 0x001CFFFF, 3, Zero, 47 },
                Package () { 0x001DFFFF, Zero, Zero, 46 }, Package () { 0x001DFFFF, One, Zero, 43 },
                Package () { 0x001DFFFF, 2, Zero, 47 }, Package () { 0x001DFFFF, 3, Zero, 44 },
                Package () { 0x001EFFFF, Zero, Zero, 43 }, Package () { 0x001EFFFF, One, Zero, 47 },
                Package () { 0x001EFFFF, 2, Zero, 44 }, Package () { 0x001EFFFF, 3, Zero, 46 },
                Package () { 0x001FFFFF, Zero, Zero, 47 }, Package () { 0x001FFFFF, One, Zero, 44 },
                Package () { 0x001FFFFF, 2, Zero, 46 }, Package () { 0x001FFFFF, 3, Zero, 43 }
            })
            Device (S01C)
            {
                // It names no pool: P001 is the default one.
                Name (_ADR, 0x001C0000)
            }
        }
    }

    Name (\_S5, Package () { 5, 5 })
}
