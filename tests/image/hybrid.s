// What Microsoft's start-up code defines for Arm64EC: IMAGE_ARM64EC_METADATA (Windows SDK, winnt.h), whose tables the linker fills,
// the dispatch pointers that the loader fills, and a load configuration that leads to the metadata.
        .section .rdata, "dr"
        .p2align 3
        .globl  __chpe_metadata
__chpe_metadata:
        .long   1                                       // Version
        .rva    __hybrid_code_map                       // CodeMap
        .long   __hybrid_code_map_count
        .rva    __x64_code_ranges_to_entry_points       // CodeRangesToEntryPoints
        .rva    __arm64x_redirection_metadata           // RedirectionMetadata
        .rva    __os_arm64x_dispatch_call_no_redirect
        .rva    __os_arm64x_dispatch_ret
        .rva    __os_arm64x_check_call
        .rva    __os_arm64x_check_icall
        .rva    __os_arm64x_check_icall_cfg
        .long   0                                       // AlternateEntryPoint
        .long   0                                       // AuxiliaryIAT of an image without imports
        .long   __x64_code_ranges_to_entry_points_count
        .long   __arm64x_redirection_metadata_count
        .long   0                                       // GetX64InformationFunctionPointer
        .long   0                                       // SetX64InformationFunctionPointer
        .rva    __arm64x_extra_rfe_table                // ExtraRFETable
        .long   __arm64x_extra_rfe_table_size
        .rva    __os_arm64x_dispatch_fptr
        .long   0                                       // AuxiliaryIATCopy

        .p2align 3
        .globl  _load_config_used
_load_config_used:
        .long   0x140                                   // Size
        .fill   0xC4, 1, 0
        .quad   __chpe_metadata                         // CHPEMetadataPointer
        .fill   0x70, 1, 0

        .data
        .p2align 3
        .irp    name, dispatch_call_no_redirect, dispatch_ret, check_call, check_icall, check_icall_cfg, dispatch_fptr
        .globl  __os_arm64x_\name
__os_arm64x_\name:
        .quad   0
        .endr
