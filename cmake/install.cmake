# cmake --install gives find_package(tandem CONFIG) with target tandem::tandem. Nothing exported holds an absolute path.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS tandem ${TANDEM_LIBRARIES} EXPORT tandem-targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
set_target_properties(${TANDEM_LIBRARIES} PROPERTIES INSTALL_RPATH "$ORIGIN")
install(FILES tandem.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tandem OPTIONAL)
foreach(folder core ops jit eager tracer io)
  install(DIRECTORY ${folder} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tandem
    FILES_MATCHING PATTERN "*.h" PATTERN "*.def" PATTERN "*.inc")
endforeach()

set(tandem_config_folder ${CMAKE_INSTALL_LIBDIR}/cmake/tandem)
set(TANDEM_NEEDS_DNNL OFF)
if(TARGET tandem::dnnl)
  set(TANDEM_NEEDS_DNNL ON)
endif()
configure_package_config_file(cmake/tandem-config.cmake.in ${PROJECT_BINARY_DIR}/tandem-config.cmake
  INSTALL_DESTINATION ${tandem_config_folder})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/tandem-config-version.cmake
  VERSION ${PROJECT_VERSION} COMPATIBILITY SameMinorVersion)
install(EXPORT tandem-targets NAMESPACE tandem:: DESTINATION ${tandem_config_folder})
install(FILES ${PROJECT_BINARY_DIR}/tandem-config.cmake ${PROJECT_BINARY_DIR}/tandem-config-version.cmake
  cmake/find_dnnl.cmake DESTINATION ${tandem_config_folder})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
