# What `cmake --install` writes of the C library: header, library, licences, and what find_package and pkg-config read.
install(TARGETS trm_edge EXPORT trm_edge-targets)
install(DIRECTORY csrc/include/trm_edge DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES LICENSE NOTICE DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(cmake_folder ${CMAKE_INSTALL_LIBDIR}/cmake/trm_edge)
install(EXPORT trm_edge-targets NAMESPACE trm_edge:: DESTINATION ${cmake_folder})
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/trm_edge-config.cmake "include(CMakeFindDependencyMacro)
find_dependency(Threads)
include(\${CMAKE_CURRENT_LIST_DIR}/trm_edge-targets.cmake)
")
include(CMakePackageConfigHelpers)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/trm_edge-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/trm_edge-config.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/trm_edge-config-version.cmake DESTINATION ${cmake_folder})

file(RELATIVE_PATH to_include ${CMAKE_INSTALL_FULL_LIBDIR} ${CMAKE_INSTALL_FULL_INCLUDEDIR})  # of any prefix
if(library_type STREQUAL "STATIC")
  set(static_libraries " -lstdc++ -lm -pthread")
endif()
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/trm_edge.pc "libdir=\${pcfiledir}/..
Name: trm_edge
Description: ${PROJECT_DESCRIPTION}
Version: ${PROJECT_VERSION}
Cflags: -I\${libdir}/${to_include}
Libs: -L\${libdir} -ltrm_edge${static_libraries}
")
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/trm_edge.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
