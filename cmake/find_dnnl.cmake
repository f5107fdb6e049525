# Defines tandem::dnnl if oneDNN 2 or 3 is found. Its own CMake config is not used: Debian's asks for OpenCL's headers.
# Installed beside tandem-config.cmake, which includes it too.
find_path(TANDEM_DNNL_INCLUDE_DIR oneapi/dnnl/dnnl.hpp)
find_library(TANDEM_DNNL_LIBRARY dnnl)
mark_as_advanced(TANDEM_DNNL_INCLUDE_DIR TANDEM_DNNL_LIBRARY)
if(TANDEM_DNNL_INCLUDE_DIR AND TANDEM_DNNL_LIBRARY AND NOT TARGET tandem::dnnl)
  add_library(tandem::dnnl INTERFACE IMPORTED)
  set_target_properties(tandem::dnnl PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${TANDEM_DNNL_INCLUDE_DIR}"
    INTERFACE_LINK_LIBRARIES "${TANDEM_DNNL_LIBRARY}")
endif()
