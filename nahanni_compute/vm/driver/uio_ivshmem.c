// SPDX-License-Identifier: GPL-2.0
/*
 * uio_ivshmem - UIO driver for QEMU's ivshmem-doorbell
 *
 * One UIO device for each MSI-X vector, named "ivshmem.<pci address>.vec<n>":
 *
 *   map0   the registers (BAR0), uncached
 *   map1   the region (BAR2), write-back
 *   read   blocks until the vector has fired; returns a running count
 *
 * Who may use it is decided by the file modes of /dev/uioN. Everything else
 * (slots, rings, who is alive) is the business of user space.
 *
 * Works on Linux 6.1 and 6.12.
 */
#include <linux/interrupt.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/uio_driver.h>
#include <linux/version.h>

#define PCI_DEVICE_ID_IVSHMEM 0x1110

#define BAR_REGISTERS 0
#define BAR_REGION 2

#define MAP_REGISTERS 0
#define MAP_REGION 1

/* The device offers up to 2048; nobody has use for more than one an endpoint. */
#define VECTORS_MAX 64

struct iv_vector {
	struct uio_info uio;
	char name[40];
};

struct iv_device {
	struct pci_dev *pdev;
	struct resource tail;	/* what BAR0 leaves of its page, see iv_claim_page() */
	int vectors;		/* of these, registered with UIO */
	struct iv_vector vector[];
};

/* MSI-X is edge-triggered: nothing to acknowledge. UIO counts, and wakes every open file. */
static irqreturn_t iv_interrupt(int irq, struct uio_info *uio)
{
	return IRQ_HANDLED;
}

struct iv_fill {
	struct mm_struct *mm;
	unsigned long pfn;
	pgprot_t prot;
};

static int iv_fill_pte(pte_t *pte, unsigned long address, void *data)
{
	struct iv_fill *fill = data;

	set_pte_at(fill->mm, address, pte, pte_mkspecial(pfn_pte(fill->pfn, fill->prot)));
	fill->pfn++;
	return 0;
}

/*
 * The region is the host's ordinary memory, and must be mapped write-back.
 * remap_pfn_range() would ask the PAT code, which turns that into uncached where
 * the firmware's MTRRs say so: SeaBIOS for the hole below 4 GiB, OVMF for every
 * 64-bit BAR. Under KVM the MTRRs themselves do not reach the hardware, but these
 * page table bits do: always on AMD, at times on Intel. Each read would then miss
 * every cache. So the entries are filled in without asking.
 */
static int iv_map_write_back(struct vm_area_struct *vma, unsigned long pfn)
{
	struct iv_fill fill = {
		.mm = vma->vm_mm,
		.pfn = pfn,
		.prot = vma->vm_page_prot,
	};
	const vm_flags_t flags = VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP;

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	vm_flags_set(vma, flags);
#else
	vma->vm_flags |= flags;
#endif
	return apply_to_page_range(vma->vm_mm, vma->vm_start, vma->vm_end - vma->vm_start,
				   iv_fill_pte, &fill);
}

/*
 * The offset of an mmap of a UIO device is the number of a map and no offset, so
 * every mapping begins where its BAR begins: only the length remains to be checked.
 */
static int iv_mmap(struct uio_info *uio, struct vm_area_struct *vma)
{
	const unsigned long length = vma->vm_end - vma->vm_start;
	const struct uio_mem *map;

	if (vma->vm_pgoff != MAP_REGISTERS && vma->vm_pgoff != MAP_REGION)
		return -EINVAL;
	map = &uio->mem[vma->vm_pgoff];
	if (!length || length > map->size)
		return -EINVAL;
	/*
	 * A private mapping would copy pages on write, unseen by all others. VM_MAYSHARE
	 * and not VM_SHARED, which is off, too, where the file is open for reading only.
	 */
	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;

	if (vma->vm_pgoff == MAP_REGION)
		return iv_map_write_back(vma, PHYS_PFN(map->addr));
	vma->vm_page_prot = pgprot_noncached(vma->vm_page_prot);
	return remap_pfn_range(vma, vma->vm_start, PHYS_PFN(map->addr), length, vma->vm_page_prot);
}

/*
 * BAR0 is 256 bytes, mappings are whole pages. Take the rest of the page as well:
 * else another device's registers, placed there, could be reached through ours.
 */
static int iv_claim_page(struct iv_device *iv)
{
	struct resource *bar = &iv->pdev->resource[BAR_REGISTERS];

	if (!PAGE_ALIGNED(bar->start))
		return -EBUSY;
	if (PAGE_ALIGNED(bar->end + 1))
		return 0;
	iv->tail.name = "uio_ivshmem: rest of the page";
	iv->tail.start = bar->end + 1;
	iv->tail.end = PAGE_ALIGN(bar->end + 1) - 1;
	iv->tail.flags = bar->flags;
	return request_resource(bar->parent, &iv->tail);
}

static void iv_release_page(struct iv_device *iv)
{
	if (iv->tail.parent)
		release_resource(&iv->tail);
}

/* Sizes and addresses that everything below relies on. */
static int iv_check_bars(struct pci_dev *pdev)
{
	const resource_size_t start = pci_resource_start(pdev, BAR_REGION);
	const resource_size_t size = pci_resource_len(pdev, BAR_REGION);

	if (!(pci_resource_flags(pdev, BAR_REGISTERS) & IORESOURCE_MEM) ||
	    !(pci_resource_flags(pdev, BAR_REGION) & IORESOURCE_MEM)) {
		dev_err(&pdev->dev, "BAR0 and BAR2 are not both memory\n");
		return -ENODEV;
	}
	if (!start || !size) {
		dev_err(&pdev->dev,
			"BAR2 has no address: the region is too large for the bus (hot-plugged? pref64-reserve= of its port too small?)\n");
		return -ENODEV;
	}
	if (!PAGE_ALIGNED(start) || !PAGE_ALIGNED(size)) {
		dev_err(&pdev->dev, "BAR2 is not made of whole pages\n");
		return -ENODEV;
	}
	return 0;
}

static int iv_register(struct iv_device *iv, int index)
{
	struct pci_dev *pdev = iv->pdev;
	struct iv_vector *vector = &iv->vector[index];
	struct uio_info *uio = &vector->uio;

	snprintf(vector->name, sizeof(vector->name), "ivshmem.%s.vec%d", pci_name(pdev), index);
	uio->name = vector->name;
	uio->version = "1";
	uio->irq = pci_irq_vector(pdev, index);
	uio->handler = iv_interrupt;
	uio->mmap = iv_mmap;

	uio->mem[MAP_REGISTERS].name = "registers";
	uio->mem[MAP_REGISTERS].addr = pci_resource_start(pdev, BAR_REGISTERS);
	uio->mem[MAP_REGISTERS].size = PAGE_ALIGN(pci_resource_len(pdev, BAR_REGISTERS));
	uio->mem[MAP_REGISTERS].memtype = UIO_MEM_PHYS;

	uio->mem[MAP_REGION].name = "region";
	uio->mem[MAP_REGION].addr = pci_resource_start(pdev, BAR_REGION);
	uio->mem[MAP_REGION].size = pci_resource_len(pdev, BAR_REGION);
	uio->mem[MAP_REGION].memtype = UIO_MEM_PHYS;

	return uio_register_device(&pdev->dev, uio);
}

static void iv_unregister_all(struct iv_device *iv)
{
	while (iv->vectors > 0)
		uio_unregister_device(&iv->vector[--iv->vectors].uio);
}

static int iv_register_all(struct iv_device *iv, int count)
{
	int err;

	while (iv->vectors < count) {
		err = iv_register(iv, iv->vectors);
		if (err) {
			iv_unregister_all(iv);
			return err;
		}
		iv->vectors++;
	}
	return 0;
}

static int iv_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct iv_device *iv;
	int count, err;

	err = iv_check_bars(pdev);
	if (err)
		return err;
	count = pci_msix_vec_count(pdev);
	if (count < 1) {
		dev_err(&pdev->dev, "no MSI-X (ivshmem-plain?): there is nothing to wait for\n");
		return -ENODEV;
	}
	count = min(count, VECTORS_MAX);
	iv = kzalloc(struct_size(iv, vector, count), GFP_KERNEL);
	if (!iv)
		return -ENOMEM;
	iv->pdev = pdev;
	pci_set_drvdata(pdev, iv);

	err = pci_enable_device(pdev);
	if (err)
		goto free;
	err = pci_request_regions(pdev, KBUILD_MODNAME);
	if (err)
		goto disable;
	err = iv_claim_page(iv);
	if (err) {
		dev_err(&pdev->dev,
			"BAR0 shares its page with another device; boot with pci=resource_alignment=12@%s\n",
			pci_name(pdev));
		goto release_regions;
	}
	/* An MSI-X message is a write by the device: without this there is no interrupt. */
	pci_set_master(pdev);
	count = pci_alloc_irq_vectors(pdev, 1, count, PCI_IRQ_MSIX);
	if (count < 0) {
		err = count;
		goto release_page;
	}
	err = iv_register_all(iv, count);
	if (err)
		goto free_vectors;
	dev_info(&pdev->dev, "%d vectors, region of %llu MiB\n", count,
		 (unsigned long long)pci_resource_len(pdev, BAR_REGION) >> 20);
	return 0;

free_vectors:
	pci_free_irq_vectors(pdev);
release_page:
	pci_clear_master(pdev);
	iv_release_page(iv);
release_regions:
	pci_release_regions(pdev);
disable:
	pci_disable_device(pdev);
free:
	kfree(iv);
	return err;
}

static void iv_remove(struct pci_dev *pdev)
{
	struct iv_device *iv = pci_get_drvdata(pdev);

	iv_unregister_all(iv);
	pci_free_irq_vectors(pdev);
	pci_clear_master(pdev);
	iv_release_page(iv);
	pci_release_regions(pdev);
	pci_disable_device(pdev);
	kfree(iv);
}

static const struct pci_device_id iv_ids[] = {
	{ PCI_DEVICE(PCI_VENDOR_ID_REDHAT_QUMRANET, PCI_DEVICE_ID_IVSHMEM) },
	{ }
};
MODULE_DEVICE_TABLE(pci, iv_ids);

static struct pci_driver iv_driver = {
	.name = KBUILD_MODNAME,
	.id_table = iv_ids,
	.probe = iv_probe,
	.remove = iv_remove,
};
module_pci_driver(iv_driver);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("UIO driver for QEMU's ivshmem-doorbell");
